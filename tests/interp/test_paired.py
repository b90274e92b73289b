"""Paired statistics: against scipy and scikit-learn, by closed form, and by how often intervals cover the truth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import cohen_kappa_score

from interp.errors import CliffscopeError
from interp.paired import Pairs, cohen_kappa, confusion, mcnemar, newcombe_interval, paired_difference


def table(both: int, only_first: int, only_second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes with these counts."""
    counts = [both, only_first, only_second, neither]
    first = np.repeat([True, True, False, False], counts)
    return first, np.repeat([True, False, True, False], counts)


def runs(rng: np.random.Generator, n: int, rate: float, flips: float) -> tuple[np.ndarray, np.ndarray]:
    """Two runs with the same rate that differ on some prompts."""
    first = rng.random(n) < rate
    return first, np.where(rng.random(n) < flips, rng.random(n) < rate, first)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 5), st.integers(0, 5))
@settings(deadline=None)
def test_mcnemar_is_scipy_s_binomial_test(b: int, c: int, a: int, d: int) -> None:
    found = mcnemar(*table(a, b, c, d))
    assert (found.only_first, found.only_second) == (b, c)
    expected = stats.binomtest(b, b + c).pvalue if b + c else 1.0
    assert found.p == pytest.approx(expected, rel=1e-9)
    # Mid-p by its definition: of all patterns, the more extreme ones and half of those as extreme.
    k = np.arange(b + c + 1)
    weights = stats.binom.pmf(k, b + c, 0.5)
    distance, observed = np.abs(2 * k - (b + c)), abs(b - c)
    expected = weights[distance > observed].sum() + weights[distance == observed].sum() / 2
    assert mcnemar(*table(a, b, c, d), mid_p=True).p == pytest.approx(expected if b + c else 1.0, rel=1e-9)


def test_mcnemar_of_many_pairs() -> None:
    found = mcnemar(*table(0, 2600, 2400, 100))
    assert found.p == pytest.approx(stats.binomtest(2400, 5000).pvalue, rel=1e-9)
    assert mcnemar(*table(0, 5000, 0, 0)).p == 0.0 or mcnemar(*table(0, 5000, 0, 0)).p < 1e-300


def test_mcnemar_keeps_its_level() -> None:
    rng = np.random.default_rng(0)
    exact, mid = zip(
        *[
            [mcnemar(*run, mid_p=mid).p for mid in (False, True)]
            for run in (runs(rng, 60, 0.4, 0.5) for _ in range(2000))
        ],
        strict=True,
    )
    rejected, rejected_mid = np.mean(np.array(exact) < 0.05), np.mean(np.array(mid) < 0.05)
    assert rejected < 0.045 and 0.03 < rejected_mid < 0.062 and rejected < rejected_mid


def test_newcombe_s_example() -> None:
    """Newcombe 1998, table II, the first contrast: 36, 12, 2, 0."""
    interval = newcombe_interval(*table(36, 2, 12, 0))
    assert list(interval) == pytest.approx([0.0569, 0.3404], abs=5e-5)
    # The other way round it is the mirror image.
    assert list(newcombe_interval(*table(36, 12, 2, 0))) == pytest.approx([-0.3404, -0.0569], abs=5e-5)


def test_the_interval_is_about_that_of_scipy_s_bootstrap() -> None:
    first, second = runs(np.random.default_rng(2), 150, 0.5, 0.4)
    found = paired_difference(first, second)
    expected = stats.bootstrap(
        (second.astype(float) - first,), np.mean, method="percentile", n_resamples=5000, rng=np.random.default_rng(3)
    ).confidence_interval
    assert list(found.interval) == pytest.approx([expected.low, expected.high], abs=0.011)
    assert found.first == pytest.approx(first.mean()) and found.second == pytest.approx(second.mean())
    assert found.difference == pytest.approx(second.mean() - first.mean()) and found.n == 150
    assert found.test == mcnemar(first, second)
    assert found.interval == newcombe_interval(first, second)
    labels = np.arange(150) // 2
    few = [
        list(paired_difference(first, second, clusters=labels, resamples=50, seed=seed).interval) for seed in (0, 0, 1)
    ]
    assert few[0] == few[1] != few[2]


def test_single_prompts_and_clusters_of_one_give_intervals_that_cover_the_truth() -> None:
    rng = np.random.default_rng(4)
    drawn = [runs(rng, 80, 0.4, 0.5) for _ in range(500)]
    covered = [
        [
            0.0 in paired_difference(*run, clusters=np.arange(80), resamples=500).interval,
            0.0 in paired_difference(*run).interval,
        ]
        for run in drawn
    ]
    bootstrap, newcombe = np.mean(covered, axis=0)
    assert 0.92 < bootstrap < 0.98 and 0.92 < newcombe < 0.99


def test_pairing_shrinks_the_interval() -> None:
    first, second = runs(np.random.default_rng(5), 300, 0.5, 0.1)
    shuffled = np.random.default_rng(6).permutation(second)
    paired, unpaired = (paired_difference(first, other).interval.width for other in (second, shuffled))
    assert paired < 0.5 * unpaired


def test_clusters_are_drawn_together() -> None:
    first, second = runs(np.random.default_rng(7), 60, 0.5, 0.6)
    copies, labels = [np.repeat(run, 5) for run in (first, second)], np.repeat(np.arange(60), 5)
    once = paired_difference(first, second).interval
    together = paired_difference(*copies, clusters=labels).interval
    of_one = paired_difference(first, second, clusters=np.arange(60)).interval
    assert list(together) == pytest.approx(list(of_one))
    assert list(together) == pytest.approx(list(once), abs=0.02)
    assert paired_difference(*copies).interval.width < 0.6 * once.width


def test_runs_that_never_differ_are_not_certain() -> None:
    same, _ = table(30, 0, 0, 70)
    found = paired_difference(same, same)
    assert found.difference == 0 and found.test.p == 1
    assert found.interval.low < 0 < found.interval.high and found.interval.width < 0.2
    clustered = paired_difference(same, same, clusters=np.arange(100) // 2)
    assert clustered.interval.reason == "every resample gives the same difference"
    none = np.zeros(40, dtype=bool)
    assert paired_difference(none, none).interval == newcombe_interval(none, none)
    assert newcombe_interval(none, none).high > 0.02


def test_too_few_prompts() -> None:
    empty, one = np.zeros(0, dtype=bool), np.ones(1, dtype=bool)
    nothing = paired_difference(empty, empty)
    assert np.isnan(nothing.first) and nothing.interval.reason == "0 prompts" and nothing.test.p == 1
    assert paired_difference(one, ~one).interval.reason == "1 prompt" and newcombe_interval(empty, empty).reason
    with pytest.raises(CliffscopeError, match="found 1 and 0"):
        mcnemar(one, empty)
    with pytest.raises(CliffscopeError, match="expected 1 labels"):
        paired_difference(one, one, clusters=["a", "b"])


def test_pairing_by_id() -> None:
    first = {"a": True, "b": None, "c": False, "d": True}
    second = {"d": False, "c": False, "b": True, "a": True, "e": True}
    pairs = Pairs.of(first, second)
    assert pairs.ids == ("a", "c", "d") and pairs.left_out == 2
    assert pairs.first.tolist() == [True, False, True] and pairs.second.tolist() == [True, False, False]
    with pytest.raises(CliffscopeError, match=r"no prompt is in both runs \(4 and 1\)"):
        Pairs.of(first, {"x": True})


@given(st.lists(st.integers(0, 30), min_size=4, max_size=4).filter(lambda counts: sum(counts) > 0))
@settings(deadline=None)
def test_kappa_is_scikit_learn_s(counts: list[int]) -> None:
    first, second = table(*counts)
    cells = confusion(first, second)
    assert cells.tolist() == [[counts[3], counts[2]], [counts[1], counts[0]]]
    kappa = float(cohen_kappa(cells))
    if (first.all() and second.all()) or not (first.any() or second.any()):
        assert np.isnan(kappa)
    else:
        assert kappa == pytest.approx(cohen_kappa_score(first, second))
    np.testing.assert_allclose(cohen_kappa(np.stack([cells, 3 * cells])), kappa)
