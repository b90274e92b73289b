"""Agreement of two judges, against scikit-learn and by hand."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, cohen_kappa_score, confusion_matrix

from interp.errors import CliffscopeError
from interp.judges import KeywordJudge, judged, measure_agreement
from interp.rollouts import Rollout


def made(verdicts: list[bool | None], prompts: list[str] | None = None) -> list[Rollout]:
    return [
        Rollout(f"r{n}", (prompts or [f"p{n}" for n in range(len(verdicts))])[n], None, f"answer {n}", refused=refused)
        for n, refused in enumerate(verdicts)
    ]


def test_by_hand() -> None:
    first = made([True, True, False, False, None, True, None])
    second = made([True, False, False, True, True, None, None])
    found = measure_agreement(first, second[::-1])
    assert (found.n, found.accuracy, found.kappa) == (4, 0.5, 0.0)
    assert (found.both_refused, found.only_first, found.only_second, found.none_refused) == (1, 1, 1, 1)
    assert found.disagreements == ("r1", "r3") and found.unjudged == (1, 1, 1)
    assert found.accuracy_interval.low < 0.5 < found.accuracy_interval.high
    # Swapped, the sides swap.
    swapped = measure_agreement(second, first)
    assert (swapped.only_first, swapped.kappa, swapped.disagreements) == (1, 0.0, ("r1", "r3"))


@pytest.mark.parametrize("seed", range(5))
def test_against_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a = rng.random(120) < 0.4
    b = np.where(rng.random(120) < 0.8, a, rng.random(120) < 0.5)
    found = measure_agreement(made(a.tolist()), made(b.tolist()))
    assert found.accuracy == pytest.approx(accuracy_score(a, b))
    assert found.kappa == pytest.approx(cohen_kappa_score(a, b))
    assert [[found.none_refused, found.only_second], [found.only_first, found.both_refused]] == confusion_matrix(
        a, b
    ).tolist()
    assert found.kappa in found.kappa_interval
    # scikit-learn's κ on rows drawn here gives the interval but for the draws.
    drawn = [cohen_kappa_score(a[rows], b[rows]) for rows in rng.integers(0, 120, size=(1000, 120))]
    np.testing.assert_allclose(list(found.kappa_interval), np.quantile(drawn, [0.025, 0.975]), atol=0.04)


def test_rollouts_of_one_prompt_are_drawn_together() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.random(30) < 0.5, rng.random(30) < 0.5
    copied = [f"p{n // 6}" for n in range(180)]
    many = [made(np.repeat(x, 6).tolist(), copied) for x in (a, b)]
    # Six copies of each prompt's verdicts tell no more than one.
    once = measure_agreement(made(a.tolist()), made(b.tolist()))
    by_prompt = measure_agreement(*many)
    assert by_prompt.kappa == pytest.approx(once.kappa)
    assert list(by_prompt.kappa_interval) == pytest.approx(list(once.kappa_interval))
    alone = measure_agreement(*(made(np.repeat(x, 6).tolist()) for x in (a, b)))
    assert alone.kappa_interval.width < 0.6 * once.kappa_interval.width


def test_what_cannot_be_had_says_why() -> None:
    always = measure_agreement(made([True] * 6), made([True] * 6))
    assert always.accuracy == 1 and np.isnan(always.kappa) and always.kappa_interval.reason is not None
    perfect = measure_agreement(made([True, False] * 20), made([True, False] * 20))
    assert perfect.kappa == 1 and perfect.kappa_interval.reason == "every resample gives the same κ"
    nothing = measure_agreement(made([None, True]), made([True, None]))
    assert nothing.n == 0 and np.isnan(nothing.accuracy) and np.isnan(nothing.kappa)
    assert nothing.accuracy_interval.reason == nothing.kappa_interval.reason == "0 rollouts"


def test_only_the_same_rollouts() -> None:
    first = made([True, False])
    with pytest.raises(CliffscopeError, match="'r1' is only in the first"):
        measure_agreement(first, first[:1])
    with pytest.raises(CliffscopeError, match="'r1' is only in the second"):
        measure_agreement(first[:1], first)
    with pytest.raises(CliffscopeError, match="rollout 'r0' has another prompt or response in the second"):
        measure_agreement(first, [replace(first[0], response="other"), first[1]])


def test_two_judges_over_rollouts() -> None:
    texts = ["I'm sorry, I can't help.", "Sure!", "I will not do it.", "As an AI I must not"]
    rollouts = [Rollout(str(n), "p" * n + "?", None, text, True) for n, text in enumerate(texts)]
    keyword, strings = (judged(rollouts, KeywordJudge(name)) for name in ("cliffscope", "arxiv:2406.11717"))
    found = measure_agreement(keyword, strings)
    by_hand = [a.id for a, b in zip(keyword, strings, strict=True) if a.refused != b.refused]
    assert list(found.disagreements) == by_hand
    assert found.payload["n"] == 4 and found.payload["unjudged"] == {"only_first": 0, "only_second": 0, "both": 0}
