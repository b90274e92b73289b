"""Significance: against scipy, exact where all patterns are tried, uniform under the null."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from interp.errors import CliffscopeError
from interp.significance import benjamini_hochberg, mean_and_interval, sign_flip_p


@pytest.mark.parametrize("n", [2, 5, 11])
def test_few_cases_give_scipy_s_exact_p(n: int) -> None:
    values = np.random.default_rng(n).normal(0.5, 1.0, size=(n, 4))
    # Over all patterns the distribution is symmetric, so that scipy's doubled tail is the two-sided p.
    expected = stats.permutation_test(
        (values,), lambda x, axis: x.mean(axis), permutation_type="samples", vectorized=True, n_resamples=np.inf
    ).pvalue
    np.testing.assert_allclose(sign_flip_p(values), expected, rtol=1e-12)


def test_many_cases_come_close_to_scipy() -> None:
    values = np.random.default_rng(0).normal(0.15, 1.0, size=(120, 3))
    expected = stats.permutation_test(
        (values,),
        lambda x, axis: x.mean(axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=9999,
        rng=np.random.default_rng(1),
    ).pvalue
    np.testing.assert_allclose(sign_flip_p(values), expected, atol=0.03)


def test_ties_of_equal_values_count() -> None:
    values = np.full((6, 1), 0.1)  # 0.1 is rounded: sums in another order differ in the last bit
    assert sign_flip_p(values)[0] == pytest.approx(2 / 2**6)
    assert sign_flip_p(np.zeros((40, 1)))[0] == 1.0


def test_clusters_are_flipped_together() -> None:
    rng = np.random.default_rng(3)
    means = rng.normal(size=(9, 2))
    copied = np.repeat(means, 4, axis=0)
    labels = np.repeat([f"prompt {i}" for i in range(9)], 4)
    np.testing.assert_allclose(sign_flip_p(copied, clusters=labels), sign_flip_p(means))
    # Taken for 36 independent cases the same values would look far surer.
    assert (sign_flip_p(copied + 1.0) < sign_flip_p(copied + 1.0, clusters=labels)).all()


def test_a_cell_s_p_does_not_depend_on_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(4).normal(0.2, 1.0, size=(50, 6, 2))
    together = sign_flip_p(values, seed=5)
    assert together.shape == (6, 2)
    np.testing.assert_array_equal(sign_flip_p(values[:, 2], seed=5), together[2])
    monkeypatch.setattr("interp.significance._ENTRIES", 1000)
    np.testing.assert_array_equal(sign_flip_p(values, seed=5), together)
    monkeypatch.setattr("interp.significance._ENTRIES", 100)
    few = sign_flip_p(values[:9])
    monkeypatch.undo()
    np.testing.assert_array_equal(few, sign_flip_p(values[:9]))


@pytest.mark.parametrize("n", [10, 60])
def test_p_is_uniform_under_the_null(n: int) -> None:
    values = np.random.default_rng(6).standard_t(3, size=(n, 2000))
    p = sign_flip_p(values, flips=999)
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert 0.035 < (p <= 0.05).mean() < 0.065


def test_what_has_no_p() -> None:
    values = np.ones((20, 2))
    values[3, 1] = np.nan
    p = sign_flip_p(values)
    assert p[0] < 0.01
    assert np.isnan(p[1])
    assert np.isnan(sign_flip_p(np.empty((0, 3)))).all()
    assert sign_flip_p(np.ones((1, 1)))[0] == 1.0
    with pytest.raises(CliffscopeError, match="expected 20 labels"):
        sign_flip_p(values, clusters=[0, 1])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_q_is_scipy_s(p: list[float]) -> None:
    np.testing.assert_allclose(benjamini_hochberg(np.array(p)), stats.false_discovery_control(p), atol=1e-12)


def test_nan_is_not_counted() -> None:
    q = benjamini_hochberg(np.array([[0.01, np.nan], [0.03, 0.02]]))
    np.testing.assert_allclose(q, [[0.03, np.nan], [0.03, 0.03]])
    assert np.isnan(benjamini_hochberg(np.array([np.nan]))).all()


def test_the_interval_is_the_studentized_bootstrap_and_at_least_student_s() -> None:
    """Against both done by hand: scipy's t, and ratios of copied resamples."""
    rng = np.random.default_rng(8)
    values = np.random.default_rng(7).exponential(size=(60, 3))
    drawn = values[rng.integers(0, 60, size=(5000, 60))]
    ratios = (drawn.mean(1) - values.mean(0)) / stats.sem(drawn, axis=1)
    lower, upper = np.quantile(ratios, [0.025, 0.975], axis=0)
    student = stats.t.ppf(0.975, 59)
    error = stats.sem(values, axis=0)
    mean, low, high = mean_and_interval(values)
    np.testing.assert_allclose(mean, values.mean(0))
    np.testing.assert_allclose(low, mean - np.maximum(upper, student) * error, atol=0.03)
    np.testing.assert_allclose(high, mean - np.minimum(lower, -student) * error, atol=0.05)
    assert (lower < -1.05 * student).all()  # skewed to the right, where Student's is too short


def test_clusters_are_drawn_whole() -> None:
    """Against the bootstrap done by hand, with clusters of unequal size; a studentized one is somewhat wider."""
    rng = np.random.default_rng(9)
    labels = np.repeat(np.arange(20), rng.integers(1, 6, size=20))
    values = rng.normal(size=20)[labels] + 0.1 * rng.normal(size=len(labels))
    means = []
    for _ in range(4000):
        drawn = np.concatenate([values[labels == label] for label in rng.integers(0, 20, size=20)])
        means.append(drawn.mean())
    mean, low, high = mean_and_interval(values, clusters=labels)
    assert mean == pytest.approx(values.mean())
    by_hand = np.quantile(means, [0.025, 0.975])
    assert low < by_hand[0] and by_hand[1] < high
    np.testing.assert_allclose([low, high], by_hand, atol=0.15)
    assert high - low > 1.3 * np.diff(np.array(mean_and_interval(values)[1:]))[0]


def test_one_cluster_has_a_mean_and_no_interval() -> None:
    mean, low, high = mean_and_interval(np.array([[1.0], [3.0]]), clusters=["a", "a"])
    assert mean[0] == 2.0 and np.isnan(low[0]) and np.isnan(high[0])
    assert np.isnan(mean_and_interval(np.empty((0, 2)))[0]).all()
