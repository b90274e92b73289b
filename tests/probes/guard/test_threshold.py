"""The threshold: its promise, its economy, and what it refuses."""

import numpy as np
import pytest

from interp.errors import CliffscopeError
from probes.guard import choose_threshold


@pytest.mark.parametrize("share", [0.05, 0.1, 0.3])
@pytest.mark.parametrize("n", [19, 20, 57])
def test_promise_holds_and_is_tight_where_the_classes_are_the_same(share: float, n: int) -> None:
    """Where harmful prompts score as benign ones do, nothing but the promise decides: FPR = 1 − k/(n + 1)."""
    rng = np.random.default_rng(0)
    rates = []
    for _ in range(4000):
        benign = rng.uniform(size=n)
        # The harmful ones all lie just above the lowest allowed cut, so that it is the one that is taken.
        value = choose_threshold(np.array([-1.0]), benign, share).value
        rates.append(1 - value)  # the share of uniform scores above it, exactly
    k = np.ceil((n + 1) * (1 - share) - 1e-9)
    expected = 1 - k / (n + 1)
    assert expected <= share + 1e-9
    error = 4 * np.std(rates) / np.sqrt(len(rates))
    assert abs(np.mean(rates) - expected) < error and error < 0.01


@pytest.mark.parametrize("seed", range(3))
def test_never_below_the_promised_score_and_no_catch_given_up(seed: int) -> None:
    rng = np.random.default_rng(seed)
    harmful, benign = rng.normal(1.5, 1, 60), rng.normal(0, 1, 80)
    value = choose_threshold(harmful, benign, 0.05).value
    least = np.sort(benign)[int(np.ceil(81 * 0.95)) - 1]
    assert value >= least
    assert (harmful > value).sum() == (harmful > least).sum() > 0
    # No higher cut frees a benign prompt without letting a harmful one go.
    higher = [cut for cut in (*harmful, *benign) if cut > value]
    better = [
        c
        for c in higher
        if (benign > c).sum() < (benign > value).sum() and (harmful > c).sum() == (harmful > value).sum()
    ]
    assert not better


def test_the_middle_of_the_gap_where_the_classes_do_not_overlap() -> None:
    found = choose_threshold(np.array([5.0, 3.0, 9.0]), np.linspace(0, 1, 40), 0.05)
    assert found.value == 2.0 and "5.0%" in found.promise and "40" in found.promise


def test_nothing_caught_keeps_the_promise() -> None:
    benign = np.arange(20.0)
    assert choose_threshold(np.array([0.5, 3.0]), benign, 0.05).value == 19.0


def test_ties_at_the_threshold_are_not_flagged() -> None:
    """Half of all benign prompts score the same: flagging them would break the promise."""
    benign = np.array([0.0] * 20 + [1.0] * 20)
    value = choose_threshold(np.array([1.0, 2.0]), benign, 0.2).value
    assert (benign > value).mean() == 0 and 2.0 > value >= 1.0


@pytest.mark.parametrize("seed", range(4))
def test_balanced_equals_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    harmful, benign = rng.normal(1, 1, 30).round(1), rng.normal(0, 1, 45).round(1)

    def quality(cut: float) -> float:
        return float((harmful > cut).mean() + (benign <= cut).mean()) / 2

    found = choose_threshold(harmful, benign, None)
    assert quality(found.value) == pytest.approx(max(quality(cut) for cut in (*harmful, *benign)))
    assert "promises nothing" in found.promise


def test_balanced_takes_the_middle_of_the_widest_gap() -> None:
    assert choose_threshold(np.array([4.0, 5.0]), np.array([0.0, 1.0]), None).value == 2.5


def test_errors() -> None:
    some = np.arange(18.0)
    with pytest.raises(CliffscopeError, match=r"18 benign prompts cannot promise 5.0% false positives, which needs 19"):
        choose_threshold(some, some, 0.05)
    choose_threshold(some, np.arange(19.0), 0.05)
    with pytest.raises(CliffscopeError, match=r"expected a share between 0 and 1, found 1.5"):
        choose_threshold(some, some, 1.5)
    with pytest.raises(CliffscopeError, match="0 harmful and 18 benign"):
        choose_threshold(np.empty(0), some, 0.1)
