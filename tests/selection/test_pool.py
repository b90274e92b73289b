"""Pools: what is read, what a bad line says, and what a survey counts."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from interp.errors import CliffscopeError
from interp.rollouts import Rollout
from interp.rollouts.prompts import load_prompts
from selection.pool import PoolExample, hash_file, read_pool, survey_pool
from tests.selection.material import write_pool


def test_all_that_a_line_can_hold(tmp_path: Path) -> None:
    row = {
        "id": 7, "Goal": "How?", "harmful": True, "category": 3, "source": "s", "target_thinking": "t",
        "target_response": "no", "thinking": "hm", "response": "yes", "refused": False, "model": "m", "other": [1],
    }  # fmt: skip
    (found,) = read_pool(write_pool(tmp_path / "p.jsonl", [row]))
    rollout = Rollout("7", "How?", "hm", "yes", True, "3", False, "s", "m")
    assert found == PoolExample("7", "How?", True, "3", "s", "t", "no", rollout)
    assert found.as_prompt().rollout("hm", "yes", refused=False, model="m") == rollout


def test_a_prompt_is_enough_and_gets_the_id_that_prompt_files_give(tmp_path: Path) -> None:
    path = write_pool(tmp_path / "p.jsonl", [{"prompt": "a"}, {"prompt": "b"}, {"prompt": "a"}])
    found = list(read_pool(path))
    assert [(e.prompt, e.harmful, e.rollout, e.target_response) for e in found] == [
        (p, None, None, None) for p in "aba"
    ]
    assert [e.id for e in found] == [prompt.id for prompt in load_prompts(path)]


def test_an_unfinished_rollout_is_one_and_nulls_are_none(tmp_path: Path) -> None:
    rows = [
        {"prompt": "a", "thinking": "hm", "response": None},
        {"prompt": "b", "thinking": None, "response": None},
        {"prompt": "c", "thinking": None, "response": "yes"},
    ]
    first, second, third = read_pool(write_pool(tmp_path / "p.jsonl", rows))
    assert first.rollout and (first.rollout.thinking, first.rollout.response) == ("hm", None)
    assert second.rollout is None
    assert third.rollout and third.rollout.thinking is None


BAD: list[tuple[Any, str]] = [
    ("{", "line 2: not valid JSON"),
    ([1], "line 2: expected a JSON object"),
    ({"prompt": " "}, "line 2: 'prompt' is empty"),
    ({"prompt": 3}, "line 2: 'prompt' must be text"),
    ({"text": "b"}, "line 2: no 'prompt', which is the prompt's key on the first line"),
    ({"prompt": "b", "harmful": "yes"}, "line 2: 'harmful' must be true, false or null"),
    ({"prompt": "b", "id": "one"}, "line 2: the id 'one' is already on line 1"),
    ({"prompt": "b", "category": ["x"]}, "line 2: 'category' must be text or null"),
    ({"prompt": "b", "target_respones": "no"}, "line 2: unknown 'target_respones'"),
    ({"prompt": "b", "target_response": " "}, "line 2: 'target_response' is empty"),
    ({"prompt": "b", "target_response": 1}, "line 2: 'target_response' must be text or null, found int"),
    ({"prompt": "b", "target_thinking": "t"}, "line 2: 'target_thinking' without 'target_response'"),
    ({"prompt": "b", "response": "yes"}, "line 2: a response without 'thinking'"),
    ({"prompt": "b", "target_response": "\ud800"}, "line 2: 'target_response' is not valid Unicode"),
    ({"prompt": "\ud800"}, "line 2: 'prompt' is not valid Unicode"),
]


@pytest.mark.parametrize(("row", "says"), BAD, ids=[says for _, says in BAD])
def test_a_bad_line_is_named(row: Any, says: str, tmp_path: Path) -> None:
    path = tmp_path / "pool.jsonl"
    second = row if isinstance(row, str) else json.dumps(row)
    path.write_text(json.dumps({"prompt": "a", "id": "one"}) + f"\n{second}\n", encoding="utf-8")
    for read in (lambda: list(read_pool(path)), lambda: survey_pool(path)):
        with pytest.raises(CliffscopeError) as error:
            read()
        assert str(error.value).startswith(f"{path}, {says}")


def test_what_is_missing_altogether(tmp_path: Path) -> None:
    with pytest.raises(CliffscopeError, match="no such file"):
        list(read_pool(tmp_path / "none.jsonl"))
    with pytest.raises(CliffscopeError, match="the pool is empty"):
        list(read_pool(write_pool(tmp_path / "empty.jsonl", [])))
    with pytest.raises(CliffscopeError, match="line 1: no prompt; its key is one of prompt, goal"):
        list(read_pool(write_pool(tmp_path / "keys.jsonl", [{"promt": "a"}])))
    with pytest.raises(CliffscopeError, match="cannot be read"):
        hash_file(tmp_path / "none.jsonl")


def test_it_is_read_line_by_line(tmp_path: Path) -> None:
    """What comes before a bad line is there before that is read."""
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "a"}\nbroken\n', encoding="utf-8")
    examples = read_pool(path)
    assert next(examples).prompt == "a"
    with pytest.raises(CliffscopeError):
        next(examples)


def test_survey(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "prompt": "a", "harmful": True},
        {"id": "b", "prompt": "b", "harmful": True, "target_response": "no"},
        {"id": "c", "prompt": "c", "harmful": False},
        {"id": "d", "prompt": "d", "thinking": "hm", "response": "yes"},
    ]
    path = write_pool(tmp_path / "p.jsonl", rows)
    found = survey_pool(path)
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (found.count, found.own, found.targets, found.lacking, found.n_lacking) == (4, 1, 1, ("a", "d"), 2)
    assert found.harmful == {"benign": 1, "harmful": 2, "unlabelled": 1}
