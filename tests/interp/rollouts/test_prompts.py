"""Prompts from every kind of file and from data sets; every wrong input named in one line."""

import csv
import json
import random
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from interp.errors import CliffscopeError
from interp.rollouts import Rollout, write_rollouts
from interp.rollouts.prompts import PROMPT_COLUMNS, Prompt, PromptSet, load_prompts

ROWS = [
    {"id": "a", "prompt": 'How do I, say, "kill"\na process?', "harmful": False, "category": "trap"},
    {"id": "b", "prompt": "Grüße – 你好 \u2028 🙂", "harmful": True, "category": None},
    {"id": "c", "prompt": " spaces stay ", "harmful": None, "category": "other"},
]
EXPECTED = [(row["id"], row["prompt"], row["harmful"], row["category"]) for row in ROWS]


def write_csv(path: Path, rows: list[dict[str, object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writeheader()
        writer.writerows(rows)


def write_jsonl(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


WRITERS: dict[str, Callable[[Path, list[dict[str, object]]], object]] = {
    "p.csv": write_csv,
    "p.tsv": write_csv,
    "p.json": lambda path, rows: path.write_text(json.dumps(rows)),
    "object.json": lambda path, rows: path.write_text(json.dumps({"about": "x", "rows": rows})),
    "p.jsonl": write_jsonl,
    "p.parquet": lambda path, rows: pd.DataFrame(rows).to_parquet(path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_file_gives_the_same_prompts(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name, ROWS)
    prompts = load_prompts(tmp_path / name)
    assert [(p.id, p.text, p.harmful, p.category) for p in prompts] == EXPECTED
    assert {p.source for p in prompts} == {name}
    assert prompts == load_prompts(str(tmp_path / name))
    assert [p.id for p in load_prompts(tmp_path / name, limit=2)] == ["a", "b"]


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(
        st.text(st.characters(exclude_categories=["Cs"])).filter(lambda text: bool(text.strip())),
        min_size=1,
        max_size=5,
    ),
    name=st.sampled_from(["p.json", "p.jsonl", "p.parquet"]),
)
def test_any_text_is_read_as_it_is(tmp_path: Path, texts: list[str], name: str) -> None:
    WRITERS[name](tmp_path / name, [{"prompt": text} for text in texts])
    assert [prompt.text for prompt in load_prompts(tmp_path / name)] == texts


@pytest.mark.parametrize("column", [*PROMPT_COLUMNS, "Prompt", "GOAL", " text "])
def test_the_prompt_column_is_found_by_name(tmp_path: Path, column: str) -> None:
    write_csv(tmp_path / "p.csv", [{"number": "1", column: "hello"}])
    assert [prompt.text for prompt in load_prompts(tmp_path / "p.csv")] == ["hello"]


def test_the_first_of_several_candidates_or_the_given_column_is_taken(tmp_path: Path) -> None:
    write_csv(tmp_path / "p.csv", [{"text": "t", "goal": "g", "other": "o"}])
    assert load_prompts(tmp_path / "p.csv")[0].text == "g"
    assert load_prompts(tmp_path / "p.csv", column="Other")[0].text == "o"
    # A column is one thing: given as the prompt, it is not the category as well.
    write_csv(tmp_path / "q.csv", [{"category": "c", "goal": "g"}])
    prompt = load_prompts(tmp_path / "q.csv", column="category")[0]
    assert (prompt.text, prompt.category) == ("c", None)


@pytest.mark.parametrize(
    ("value", "harmful"),
    [("true", True), ("True", True), ("1", True), ("harmful", True), ("0", False), ("Benign", False), ("", None)],
)
def test_labels(tmp_path: Path, value: str, harmful: bool | None) -> None:
    write_csv(tmp_path / "p.csv", [{"prompt": "x", "Harmful": value}])
    assert load_prompts(tmp_path / "p.csv")[0].harmful is harmful


def test_a_label_for_the_file_fills_the_gaps_and_contradicts_nothing(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "p.jsonl", [{"prompt": "x", "harmful": True}, {"prompt": "y"}])
    assert [p.harmful for p in load_prompts(tmp_path / "p.jsonl", harmful=True)] == [True, True]
    with pytest.raises(CliffscopeError, match="line 1: says harmful = true, against the label"):
        load_prompts(tmp_path / "p.jsonl", harmful=False)


def test_a_label_that_only_later_lines_have_is_seen(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "p.jsonl", [{"prompt": "x"}, {"prompt": "y", "harmful": True}])
    assert [p.harmful for p in load_prompts(tmp_path / "p.jsonl")] == [None, True]


def test_ids_from_the_text_stay_when_the_file_is_shuffled(tmp_path: Path) -> None:
    texts = [f"prompt {i % 7}" for i in range(20)]
    write_jsonl(tmp_path / "a.jsonl", [{"prompt": text} for text in texts])
    first = load_prompts(tmp_path / "a.jsonl")
    assert len({prompt.id for prompt in first}) == 20
    random.Random(0).shuffle(texts)
    write_jsonl(tmp_path / "b.jsonl", [{"prompt": text} for text in texts])
    second = load_prompts(tmp_path / "b.jsonl")
    assert {(p.id, p.text) for p in first} == {(p.id, p.text) for p in second}
    # Pinned, from sha256sum: ids are in users' files.
    assert first[0].id == "481d04be4cdbb88b"
    assert first[7].id == "481d04be4cdbb88b-2"


def test_a_rollouts_file_serves_as_prompts(tmp_path: Path) -> None:
    write_rollouts(tmp_path / "r.jsonl", [Rollout("7", "hello", "t", "r", True, "c", False, "src", "m")])
    assert list(load_prompts(tmp_path / "r.jsonl")) == [Prompt("7", "hello", True, "c", "src")]


def test_a_prompt_becomes_a_rollout() -> None:
    prompt = Prompt("7", "hello", True, "c", "src")
    assert prompt.rollout("t", None, model="m") == Rollout("7", "hello", "t", None, True, "c", None, "src", "m")


def test_prompt_sets_are_sequences_with_a_fingerprint_of_their_content() -> None:
    a, b = Prompt("a", "x"), Prompt("b", "y")
    both = PromptSet((a, b), "one.csv")
    assert both[0] == a and both[:1] == (a,) and list(both) == [a, b] and len(both) == 2 and b in both
    assert both.fingerprint == PromptSet((a, b), "two.csv").fingerprint
    others = [PromptSet((b, a)), PromptSet((a,)), PromptSet((a, Prompt("b", "y", harmful=True)))]
    assert len({both.fingerprint, *(other.fingerprint for other in others)}) == 4
    with pytest.raises(CliffscopeError, match="2 prompts have the id 'a'"):
        PromptSet((a, Prompt("a", "z")))


def test_a_byte_order_mark_and_other_line_ends_are_no_part_of_the_data(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_bytes(b"\xef\xbb\xbfprompt,id\r\nhello,1\r\n\r\nworld,2\r\n")
    assert [(p.id, p.text) for p in load_prompts(tmp_path / "p.csv")] == [("1", "hello"), ("2", "world")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.csv", "", "the file is empty"),
        ("p.csv", "prompt\n", "no prompts"),
        ("p.csv", "idea,x\na,b\n", "no prompt column (prompt, goal, instruction, question, text); the columns are "),
        ("p.csv", "prompt,PROMPT\na,b\n", "the columns 'prompt', 'PROMPT' differ only in case"),
        ("p.csv", "prompt,prompt\na,b\n", "line 1: the column 'prompt' occurs twice"),
        ("p.csv", 'prompt,x\n"two\nlines",1\n  ,2\n', "line 4: the prompt (column 'prompt') is empty"),
        ("p.csv", "prompt,x\na,b\nc,d,e\n", "line 3: 3 fields, but the header has 2"),
        ("p.csv", 'prompt\n"open\n', "line 2: not valid CSV"),
        ("p.csv", "prompt,harmful\na,maybe\n", "line 2: 'harmful' is 'maybe'"),
        ("p.csv", "prompt,id\na,1\nb,1\n", "line 3: the id '1' is already on line 2"),
        ("p.csv", "prompt,id\na,1\nb,\n", "line 3: no id"),
        ("p.json", " ", "the file is empty"),
        ("p.json", '[{"prompt": "a"},\n{"prompt": }]', "line 2: not valid JSON"),
        ("p.json", "[]", "no prompts"),
        ("p.json", '["a"]', "item 1: expected an object, found str"),
        ("p.json", '"a"', "expected a list of objects, found str"),
        ("p.json", '{"a": [], "b": []}', "found an object with 2 lists"),
        ("p.json", '[{"prompt": "a"}, {"prompt": 3}]', "item 2: the prompt (column 'prompt') must be text"),
        ("p.json", '[{"prompt": "a"}, {"x": 3}]', "item 2: the prompt (column 'prompt') is empty or missing"),
        ("p.json", '[{"prompt": "\\ud800"}]', "item 1: 'prompt' is not valid Unicode"),
        ("p.jsonl", "", "the file is empty"),
        ("p.jsonl", '{"prompt": "a"}\n{"prompt"\n', "line 2: not valid JSON"),
        ("p.jsonl", '{"prompt": "a"}\n\n{"prompt": ""}\n', "line 3: the prompt (column 'prompt') is empty"),
        ("p.jsonl", '{"prompt": "a", "id": 1.5}\n', "line 1: 'id' must be text or a whole number, found 1.5"),
        ("p.jsonl", '{"prompt": "a", "harmful": 2}\n', "line 1: 'harmful' is 2"),
        ("p.jsonl", '{"prompt": "a", "category": ["x"]}\n', "line 1: 'category' must be text"),
        ("p.parquet", "no parquet", "not a Parquet file"),
        ("p.txt", "hello", "unknown kind of file '.txt'"),
        ("p", "hello", "unknown kind of file ''"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(CliffscopeError) as caught:
        load_prompts(tmp_path / name)
    assert message in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_bytes_and_bad_arguments(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_bytes(b"prompt\n\xff\xfe\n")
    with pytest.raises(CliffscopeError, match="not UTF-8"):
        load_prompts(tmp_path / "p.csv")
    write_csv(tmp_path / "q.csv", [{"prompt": "x", "y": "z"}])
    with pytest.raises(CliffscopeError, match="no column 'nope'; the columns are 'prompt', 'y'"):
        load_prompts(tmp_path / "q.csv", column="nope")
    with pytest.raises(CliffscopeError, match="limit must be at least 1"):
        load_prompts(tmp_path / "q.csv", limit=0)
    with pytest.raises(CliffscopeError, match="are for data sets, not for files"):
        load_prompts(tmp_path / "q.csv", split="train")


@pytest.mark.parametrize("name", ["nope.csv", "./owner/name", "prompts", "data/nope.jsonl", "owner/name.csv", "a/b/c"])
def test_what_looks_like_a_path_is_never_asked_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    import datasets

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    monkeypatch.chdir(tmp_path)
    started = time.monotonic()
    with pytest.raises(CliffscopeError, match="no such file"):
        load_prompts(name)
    assert time.monotonic() - started < 1


@pytest.fixture
def data_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.mark.usefixtures("data_cache")
def test_a_data_set_is_loaded_by_the_datasets_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    folder = tmp_path / "owner" / "name"
    folder.mkdir(parents=True)
    write_jsonl(folder / "train.jsonl", [{"Goal": "x", "harmful": True}, {"Goal": "y", "harmful": False}])
    prompts = load_prompts(folder)
    assert [(p.text, p.harmful, p.source) for p in prompts] == [("x", True, "name"), ("y", False, "name")]
    # By its id: the same loading code, with the hub's answer replaced by the folder.
    real = datasets.load_dataset

    def from_folder(name: str, config: str | None, split: str | None) -> object:
        assert name == "owner/name"
        return real(str(folder), config, split=split)

    monkeypatch.setattr(datasets, "load_dataset", from_folder)
    monkeypatch.chdir(folder)
    from_hub = load_prompts("owner/name", split="train", limit=1)
    assert [(p.text, p.harmful, p.source) for p in from_hub] == [("x", True, "owner/name")]


@pytest.mark.usefixtures("data_cache")
def test_splits_are_named_not_guessed(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    write_jsonl(folder / "train.jsonl", [{"prompt": "x"}])
    write_jsonl(folder / "test.jsonl", [{"prompt": "y"}])
    with pytest.raises(CliffscopeError, match="has the splits 'train', 'test'; name one"):
        load_prompts(folder)
    assert [p.text for p in load_prompts(folder, split="test")] == ["y"]
    with pytest.raises(CliffscopeError, match="cannot be loaded as a data set"):
        load_prompts(folder, split="nope")
    (tmp_path / "void").mkdir()
    with pytest.raises(CliffscopeError, match="cannot be loaded as a data set"):
        load_prompts(tmp_path / "void")


def test_without_the_hub_a_data_set_fails_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CliffscopeError, match="hub cannot be reached") as caught:
        load_prompts("owner/name")
    assert "\n" not in str(caught.value)
