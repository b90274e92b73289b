import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import roc_auc_score

from interp.errors import CliffscopeError
from interp.statistics import (
    Interval,
    accuracy,
    auroc,
    auroc_interval,
    average_ranks,
    bootstrap_auroc,
    bootstrap_band,
    bootstrap_counts,
    bootstrap_interval,
    expected_calibration_error,
    proportion_interval,
    score_interval_of_auroc,
)

few_values = st.integers(0, 4).map(float)  # few distinct values, so that ties are common


@st.composite
def scored(draw, minimum=4, maximum=30):
    n = draw(st.integers(minimum, maximum))
    scores = draw(arrays(np.float64, n, elements=few_values))
    labels = draw(arrays(np.int64, n, elements=st.integers(0, 1)))
    labels[:2] = (0, 1)
    return scores, labels


@given(scored())
def test_auroc_agrees_with_scikit_learn_with_ties(data):
    scores, labels = data
    assert auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


@given(scored(), st.randoms(use_true_random=False))
def test_auroc_ignores_the_order_of_rollouts_and_flips_with_the_sign(data, random):
    scores, labels = data
    order = random.sample(range(len(scores)), len(scores))
    assert auroc(scores[order], labels[order]) == pytest.approx(auroc(scores, labels), abs=1e-12)
    assert auroc(-scores, labels) == pytest.approx(1 - auroc(scores, labels), abs=1e-12)


def test_auroc_over_leading_axes_equals_one_at_a_time():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 5, (3, 4, 40)).astype(float)
    shared, own = rng.integers(0, 2, 40), rng.integers(0, 2, (3, 4, 40))
    for labels in (shared, own):
        each = np.broadcast_to(labels, scores.shape)
        expected = [[roc_auc_score(each[i, j], scores[i, j]) for j in range(4)] for i in range(3)]
        np.testing.assert_allclose(auroc(scores, labels), expected, atol=1e-12)


def test_average_ranks_of_ties():
    np.testing.assert_array_equal(average_ranks([3.0, 1.0, 3.0, 2.0, 3.0]), [4, 1, 4, 2, 4])


def test_auroc_without_both_classes_or_with_nan_is_nan():
    assert math.isnan(auroc([0.1, 0.2], [1, 1]))
    assert math.isnan(auroc([0.1, math.nan, 0.3], [0, 1, 1]))


def test_labels_other_than_0_and_1_and_of_another_length_are_refused():
    with pytest.raises(CliffscopeError, match="only 0 and 1"):
        auroc([0.1, 0.2], [0, 2])
    with pytest.raises(CliffscopeError, match="expected 3 values"):
        auroc([0.1, 0.2, 0.3], [0, 1])


def test_accuracy_counts_the_threshold_as_class_1():
    assert accuracy([0.5, 0.4, 0.9, 0.2], [1, 0, 0, 0]) == pytest.approx(0.75)


def test_calibration_error_by_hand():
    # Bin [0.2, 0.3): mean 0.25, none of class 1. Bin [0.9, 1]: mean 0.95, three of four of class 1.
    probabilities, labels = [0.2, 0.3 - 1e-9, 0.9, 0.95, 0.95, 1.0], [0, 0, 1, 1, 1, 0]
    assert expected_calibration_error(probabilities, labels) == pytest.approx((0.5 + 0.8) / 6, abs=1e-6)
    # In one bin the gaps +0.22 and −0.72 offset each other; in neighbouring bins they would not.
    assert expected_calibration_error([0.22, 0.28], [0, 1]) == pytest.approx(0.25)
    assert expected_calibration_error([0.18, 0.22], [0, 1]) == pytest.approx(0.48)
    assert expected_calibration_error([0.0, 1.0], [0, 1]) == 0
    assert expected_calibration_error([0.0, 1.0], [1, 0]) == 1


def test_calibration_error_is_small_for_a_calibrated_source():
    rng = np.random.default_rng(0)
    probabilities = rng.random(50_000)
    assert expected_calibration_error(probabilities, rng.random(50_000) < probabilities) < 0.01
    assert expected_calibration_error(probabilities, rng.random(50_000) < probabilities**3) > 0.2


def test_resampled_calibration_error_equals_that_of_copied_data():
    rng = np.random.default_rng(1)
    probabilities, labels = rng.random((2, 30)), rng.integers(0, 2, 30)
    counts = bootstrap_counts(30, 20, seed=2)
    resampled = expected_calibration_error(probabilities, labels, counts=counts)
    for b, row in enumerate(counts.astype(int)):
        copies = np.repeat(np.arange(30), row)
        expected = expected_calibration_error(probabilities[:, copies], labels[copies])
        np.testing.assert_allclose(resampled[:, b], expected, atol=1e-12)


@given(scored(), st.booleans())
@settings(max_examples=30)
def test_resampled_auroc_equals_that_of_copied_data(data, stratified):
    scores, labels = data
    counts = bootstrap_counts(len(scores), 20, seed=3, strata=labels if stratified else None)
    assert (counts.sum(1) == len(scores)).all()
    resampled = bootstrap_auroc(scores, labels, counts)
    for value, row in zip(resampled, counts.astype(int), strict=True):
        copies = np.repeat(np.arange(len(scores)), row)
        np.testing.assert_allclose(value, auroc(scores[copies], labels[copies]), atol=1e-12)
    if stratified:
        assert not np.isnan(resampled).any()


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    values = np.random.default_rng(0).normal(size=30)
    assert bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)


def test_the_interval_of_a_mean_covers_it_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = [
        0.0 in bootstrap_interval(rng.normal(size=50), resamples=500, seed=trial, confidence=0.9)
        for trial in range(600)
    ]
    assert 0.87 <= np.mean(covered) <= 0.93


def test_the_interval_of_an_auroc_covers_the_true_one():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 60)
    truth = 0.7602  # of two unit normals one apart: Φ(1/√2)
    covered = [
        truth in auroc_interval(rng.normal(size=120) + labels, labels, resamples=300, seed=trial)
        for trial in range(400)
    ]
    assert 0.915 <= np.mean(covered) <= 0.975


def test_a_statistic_of_ones_own_has_percentiles_which_many_rollouts_make_agree_with_the_built_in_mean():
    values = np.random.default_rng(0).normal(size=400)
    own = bootstrap_interval(values, lambda drawn: drawn.mean(axis=1), seed=5)
    counts = bootstrap_counts(400, seed=5)
    assert tuple(own) == pytest.approx(tuple(np.quantile(counts @ values / 400, [0.025, 0.975])))
    assert tuple(own) == pytest.approx(tuple(bootstrap_interval(values, seed=5)), abs=0.02)


def test_the_band_of_curves_equals_the_interval_at_each_point():
    curves = np.random.default_rng(0).normal(size=(25, 7))
    low, high = bootstrap_band(curves, seed=4)
    for point in range(7):
        interval = bootstrap_interval(curves[:, point], seed=4)
        assert (low[point], high[point]) == pytest.approx(tuple(interval))


@pytest.mark.parametrize("values", [[], [0.7]])
def test_fewer_than_two_rollouts_have_no_interval(values):
    interval = bootstrap_interval(values)
    assert math.isnan(interval.low) and math.isnan(interval.high)
    assert f"{len(values)} rollout" in str(interval.reason) and "n/a" in str(interval)
    assert all(np.isnan(bound).all() for bound in bootstrap_band(np.zeros((len(values), 3))))


def test_an_auroc_interval_is_open_at_one_and_undefined_for_a_single_rollout_of_a_class():
    separated = auroc_interval(np.arange(20), np.arange(20) >= 10)
    assert separated.high == 1.0 and 0.7 < separated.low < 0.95
    alone = auroc_interval([0.1, 0.2, 0.3, 0.9], [0, 0, 0, 1])
    assert math.isnan(alone.low) and "1 rollouts of class 1" in str(alone.reason)
    assert auroc_interval([0.1, math.nan, 0.3, 0.9], [0, 0, 1, 1]).reason == "some scores are NaN"


def test_the_score_interval_of_an_auroc_narrows_and_solves_its_equation():
    wide, narrow = (score_interval_of_auroc(0.8, n, n) for n in (20, 200))
    assert wide.low < narrow.low < 0.8 < narrow.high < wide.high
    theta, n = wide.low, 20
    variance = theta * (1 - theta) * (1 + (n - 1) * ((1 - theta) / (2 - theta) + theta / (1 + theta))) / n**2
    assert 0.8 - theta == pytest.approx(1.959964 * math.sqrt(variance), rel=1e-5)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(0, 10, 0.0, 0.27753), (10, 10, 0.72247, 1.0), (5, 10, 0.23659, 0.76341), (81, 263, 0.2553, 0.3662)],
)
def test_wilson_intervals_of_known_cases(successes, n, low, high):
    assert tuple(proportion_interval(successes, n)) == pytest.approx((low, high), abs=5e-5)


def test_a_proportion_of_nothing_is_undefined_and_an_impossible_one_refused():
    assert proportion_interval(0, 0).reason == "0 rollouts"
    with pytest.raises(CliffscopeError, match="successes"):
        proportion_interval(3, 2)


def test_an_interval_unpacks_and_contains():
    low, high = Interval(0.1, 0.4)
    assert (low, high) == (0.1, 0.4) and 0.2 in Interval(0.1, 0.4) and 0.5 not in Interval(0.1, 0.4)
