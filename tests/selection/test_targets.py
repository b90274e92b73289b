"""Targets: by flag, never a refusal for what is labelled benign, and refusals that judges know."""

from collections import Counter
from pathlib import Path

import pytest

from interp.errors import CliffscopeError
from interp.judges import KeywordJudge
from interp.rollouts import Rollout
from selection.examples import TrainingExample
from selection.pool import PoolExample, survey_pool
from selection.targets import (
    TARGETS,
    Target,
    check_targets,
    has_target,
    kind_of,
    make_target,
    make_targets,
    refusal,
    refusals,
)
from tests.selection.material import write_pool

OWN = Rollout("a", "How?", "own thinking", "own answer", True)


def pool_example(harmful: bool | None, given: bool, thinking: bool = False) -> PoolExample:
    return PoolExample(
        "a", "How?", harmful, "c", None, "pool thinking" if thinking else None, "pool answer" if given else None
    )


@pytest.mark.parametrize(
    ("target", "harmful", "given", "response"),
    [
        ("pool", True, True, "pool answer"),
        ("pool", None, True, "pool answer"),
        ("pool", False, True, "pool answer"),
        ("pool", False, False, "own answer"),
        ("own-thinking", True, True, refusal("a")),
        ("own-thinking", True, False, refusal("a")),
        ("own-thinking", None, True, "pool answer"),
        ("own-thinking", None, False, refusal("a")),
        ("own-thinking", False, True, "own answer"),
        ("own-thinking", False, False, "own answer"),
        ("endpoint", True, True, "server's answer"),
        ("endpoint", None, True, "pool answer"),
        ("endpoint", None, False, "server's answer"),
        ("endpoint", False, False, "own answer"),
    ],
)
def test_what_is_trained_on(target: Target, harmful: bool | None, given: bool, response: str) -> None:
    made = make_target(pool_example(harmful, given), OWN, target, {"a": "server's answer"})
    assert made == TrainingExample("a", "How?", "own thinking", response, harmful, "c")


def test_the_pools_thinking_goes_with_the_pools_answer_only() -> None:
    example = pool_example(True, True, thinking=True)
    assert make_target(example, OWN, "pool").thinking == "pool thinking"
    assert make_target(example, OWN, "own-thinking").thinking == "own thinking"
    assert kind_of(example, "pool") == "from the pool"
    assert kind_of(pool_example(True, True), "pool") == "from the pool, after own thinking"


def test_nothing_to_train_towards_is_an_error() -> None:
    for target, answers in (("pool", None), ("endpoint", {}), ("endpoint", {"a": " "})):
        with pytest.raises(CliffscopeError, match="example 'a': there is no answer to train towards"):
            make_target(pool_example(True, False), OWN, target, answers)  # type: ignore[arg-type]


def test_counts_say_how_often_a_label_was_missing() -> None:
    examples = [pool_example(label, given) for label in (True, False, None) for given in (True, False)]
    made = make_targets([(example, OWN) for example in examples], "own-thinking")
    assert made.counts == {
        "refusal after own thinking": 3,
        "own answer": 2,
        "from the pool, after own thinking": 1,
        "of these for prompts without a label": 1,
    }
    assert len(made.examples) == 6


def test_only_an_answer_is_a_benign_prompts_own_target() -> None:
    for target in TARGETS:
        assert has_target(True, False, False, target) and has_target(None, False, False, target)
        assert has_target(False, False, True, target) and not has_target(False, False, False, target)
        assert has_target(False, True, False, target) == (target == "pool")


def test_a_pool_that_is_to_give_targets_must_have_them(tmp_path: Path) -> None:
    rows = [{"id": str(n), "prompt": "p", "harmful": n > 1} for n in range(8)]
    survey = survey_pool(write_pool(tmp_path / "p.jsonl", rows))
    with pytest.raises(CliffscopeError) as error:
        check_targets(survey, "pool")
    said = str(error.value)
    assert "p.jsonl: 6 of 8 examples have no target_response" in said and "('2', '3', '4', …)" in said
    assert "--target own-thinking" in said and "--target endpoint" in said
    check_targets(survey, "own-thinking")
    check_targets(survey_pool(write_pool(tmp_path / "p.jsonl", rows[:2])), "pool")
    with pytest.raises(CliffscopeError, match="target 'refusal': expected one of pool, own-thinking, endpoint"):
        check_targets(survey, "refusal")


def test_refusals_are_known_as_such_and_vary() -> None:
    texts = refusals()
    assert len(set(texts)) == len(texts) >= 12
    found = KeywordJudge().judge([Rollout("a", "How?", "t", text) for text in texts])
    assert all(judgement.refused for judgement in found)
    drawn = Counter(refusal(f"id-{n}") for n in range(3000))
    assert set(drawn) == set(texts)
    assert max(drawn.values()) < 2 * min(drawn.values())
    assert [refusal(f"id-{n}") for n in range(9)] == [refusal(f"id-{n}") for n in range(9)]
