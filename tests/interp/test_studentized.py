"""Studentized intervals: quantiles and standard errors against scipy, and what happens at the ends."""

import numpy as np
import pytest
from scipy import stats

from interp.significance import difference_and_interval, mean_and_interval
from interp.statistics import bootstrap_counts
from interp.studentized import MOST, student_quantile, studentized_bounds


@pytest.mark.parametrize("freedom", [1, 2, 3, 7, 7.4, 19, 199, 1999, 2001])
def test_student_quantiles_are_scipy_s(freedom: float) -> None:
    for probability in (0.025, 0.5, 0.9, 0.975, 0.995):
        expected = stats.t.ppf(probability, freedom)
        assert student_quantile(probability, freedom) == pytest.approx(expected, rel=1e-3, abs=1e-9)
        if freedom < 2000:
            assert student_quantile(probability, freedom) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_symmetric_values_have_about_student_s_interval() -> None:
    values = np.random.default_rng(0).normal(size=200)
    values = np.concatenate([values, -values]) + 3.0
    expected = stats.t.interval(0.95, 399, loc=values.mean(), scale=stats.sem(values))
    _, low, high = mean_and_interval(values[:, None])
    np.testing.assert_allclose([low[0], high[0]], expected, atol=0.01)
    assert low[0] <= expected[0] + 1e-9 and high[0] >= expected[1] - 1e-9


def test_a_difference_has_about_welch_s_interval() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.normal(1.0, 3.0, size=60), rng.normal(size=150)
    expected = stats.ttest_ind(first, second, equal_var=False).confidence_interval()
    value, low, high = difference_and_interval(first, second)
    assert value == pytest.approx(first.mean() - second.mean())
    assert [low, high] == pytest.approx([expected.low, expected.high], abs=0.15)
    assert low <= expected.low + 0.01 and high >= expected.high - 0.01


def test_clusters_of_one_value_repeated_count_once() -> None:
    values = np.random.default_rng(2).normal(size=12)
    labels = np.repeat(np.arange(12), 4)
    once, repeated = mean_and_interval(values[:, None]), mean_and_interval(values[labels][:, None], clusters=labels)
    np.testing.assert_allclose(once, repeated)
    alone = difference_and_interval(values[:6], values[6:])
    together = difference_and_interval(
        values[:6].repeat(3), values[6:].repeat(2), clusters=(np.arange(6).repeat(3), np.arange(6).repeat(2))
    )
    assert alone == pytest.approx(together)


def test_a_bound_runs_off_no_further_than_said() -> None:
    """Seven equal values and an outlier: a third of all resamples have no spread at all."""
    values = np.array([1.0] * 7 + [0.0])
    _, low, high = mean_and_interval(values[:, None])
    student = stats.t.ppf(0.975, 7) * stats.sem(values)
    assert low[0] == pytest.approx(values.mean() - MOST * student)
    assert values.mean() + student - 1e-6 <= high[0] < values.mean() + MOST * student


def test_equal_values_unknown_ones_and_missing_samples() -> None:
    mean, low, high = mean_and_interval(np.array([[0.1, np.nan], [0.1, 1.0], [0.1, 2.0]]))
    assert low[0] == high[0] == pytest.approx(mean[0]) and np.isnan([mean[1], low[1], high[1]]).all()
    assert np.isnan(difference_and_interval(np.empty(0), np.ones(3))).all()
    assert np.isnan(difference_and_interval(np.ones(1), np.ones(3))[1:]).all()


def test_columns_do_not_touch_one_another() -> None:
    sums = np.random.default_rng(3).exponential(size=(9, 3))
    counts, sizes = bootstrap_counts(9), np.ones(9)
    together = np.stack(studentized_bounds([(sums, sizes, counts)]))
    alone = [np.stack(studentized_bounds([(sums[:, [column]], sizes, counts)])) for column in range(3)]
    np.testing.assert_allclose(together, np.concatenate(alone, axis=1))
    assert (studentized_bounds([(sums, sizes, counts)], 0.5)[0] > together[0]).all()
