"""The file of an evaluation: back as it was, and refused where it is not what it says."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from interp.errors import CliffscopeError
from selection.evaluation import Estimate, Evaluation
from tests.selection.evaluation.material import evaluation, outcomes

MADE = evaluation(
    outcomes("harmful", [True, False, None]) + outcomes("benign", [False, True]),
    interventions=("mask 12345678",),
    facts={"mask": {"heads": ["3.1"]}},
    kl=Estimate.undefined("it is the base itself"),
)


def test_saved_and_loaded(tmp_path: Path) -> None:
    MADE.save(tmp_path / "a.json")
    found = Evaluation.load(tmp_path / "a.json")
    assert found == MADE and found.rates == MADE.rates
    found.save(tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".json"]


def test_others_can_read_it(tmp_path: Path) -> None:
    MADE.save(tmp_path / "a.json")
    content = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert (content["format"], content["version"]) == ("cliffscope.evaluation", 1)
    assert content["rates"]["all"]["asr"]["count"] == 1 and content["rates"]["all"]["asr"]["n"] == 2
    assert [row["outcome"] for row in content["outcomes"][:3]] == ["refused", "answered", "unjudged"]
    assert content["unjudged"] == {"harmful": 1, "benign": 0}


def changed(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def spoil(path: Path) -> None:
        content = json.loads(path.read_text(encoding="utf-8"))
        change(content)
        path.write_text(json.dumps(content), encoding="utf-8")

    return spoil


@pytest.mark.parametrize(
    "spoil, says",
    [
        (lambda path: path.unlink(), "no such file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-40]), "not valid JSON"),
        (lambda path: path.write_bytes(b"\xff"), "not valid JSON"),
        (lambda path: path.write_text("[" * 100_000), "not valid JSON"),
        (lambda path: path.write_text('["a"]'), "not an evaluation"),
        (lambda path: path.write_text('{"format": "cliffscope.probe"}'), "not an evaluation"),
        (changed(lambda content: content.update(version=9)), "version 9, expected 1"),
        (changed(lambda content: content.pop("judge")), "not a whole evaluation.*'judge'"),
        (changed(lambda content: content["outcomes"].pop()), "rates do not follow from its outcomes"),
        (changed(lambda content: content["outcomes"][0].pop("set")), "not a whole evaluation.*'set'"),
        (changed(lambda content: content["outcomes"][0].update(set="others")), "unknown set 'others'"),
        (
            changed(lambda content: content["outcomes"][1].update(id="0", prompt=content["outcomes"][0]["prompt"])),
            "two",
        ),
        (changed(lambda content: content["outcomes"][1].update(outcome="refused")), "rates do not follow"),
    ],
)
def test_what_is_no_evaluation(spoil: Callable[[Path], object], says: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    MADE.save(path)
    spoil(path)
    with pytest.raises(CliffscopeError, match=says) as told:
        Evaluation.load(path)
    assert str(told.value).startswith(f"{path}: ") and "\n" not in str(told.value)


def test_facts_that_json_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(CliffscopeError, match="JSON cannot hold"):
        evaluation([], facts={"score": float("nan")}).save(tmp_path / "a.json")
    assert not list(tmp_path.iterdir())
