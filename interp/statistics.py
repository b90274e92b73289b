"""AUROC, accuracy, calibration error, and their intervals, vectorized over leading axes.

The bootstrap resamples rollouts with replacement. A resample is kept as a row of *counts* (how often each
rollout was drawn), never as copied data: every statistic here is then a product of the counts with something
computed once, so that a thousand resamples of thousands of cells cost a few matrix products.

Where a figure cannot be had (one class only, one rollout), the result is NaN and says why: an interval of
zero width would claim certainty. Means have the studentized bootstrap of `interp.studentized`, which holds for
few rollouts too. A bootstrap also collapses to a point when every resample agrees, for instance at an AUROC of
exactly 1; `auroc_interval` then falls back on the score-type interval of Newcombe (2006), which stays open, as
Wilson's (1927) does for proportions. How often each covers the truth: docs/calibration.md.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interp.errors import CliffscopeError
from interp.studentized import studentized_bounds

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A confidence interval; `low` and `high` are NaN where there is none, and `reason` then says why."""

    low: float
    high: float
    reason: str | None = None

    @classmethod
    def undefined(cls, reason: str) -> "Interval":
        """The interval of a figure that cannot be had."""
        return cls(math.nan, math.nan, reason)

    @property
    def width(self) -> float:
        """`high - low`."""
        return self.high - self.low

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __iter__(self) -> Iterator[float]:
        return iter((self.low, self.high))

    def __str__(self) -> str:
        return f"n/a ({self.reason})" if self.reason else f"[{self.low:.3f}, {self.high:.3f}]"


def average_ranks(values: ArrayLike) -> Array:
    """Ranks from 1 along the last axis; equal values share the mean of their ranks.

    Args:
        values: `[..., n]`.
    """
    values = np.asarray(values, dtype=np.float64)
    n = values.shape[-1]
    order = np.argsort(values, axis=-1, kind="stable")
    ordered = np.take_along_axis(values, order, axis=-1)
    changes = ordered[..., 1:] != ordered[..., :-1]
    edge = np.ones((*values.shape[:-1], 1), dtype=bool)
    position = np.arange(n)
    # The first and the last place of the run of equal values to which each place belongs.
    first = np.maximum.accumulate(np.where(np.concatenate([edge, changes], -1), position, 0), axis=-1)
    last = np.where(np.concatenate([changes, edge], -1), position, n)
    last = np.minimum.accumulate(last[..., ::-1], axis=-1)[..., ::-1]
    ranks = np.empty_like(values)
    np.put_along_axis(ranks, order, (first + last) / 2 + 1, axis=-1)
    return ranks


def auroc(scores: ArrayLike, labels: ArrayLike) -> Array:
    """The probability that a rollout of class 1 scores above one of class 0; a tie counts one half. Exact.

    Args:
        scores: `[..., n]`, in any unit; only their order matters.
        labels: `[..., n]` or `[n]`, of 0 and 1.

    Returns:
        `[...]`; NaN where one class is missing or a score is NaN.
    """
    scores = np.asarray(scores, dtype=np.float64)
    positive = _labels(labels, scores.shape)
    n_positive = positive.sum(-1)
    n_negative = positive.shape[-1] - n_positive
    rank_sum = (average_ranks(scores) * positive).sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        area = (rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)
    return np.where(np.isnan(scores).any(-1), math.nan, area)


def accuracy(probabilities: ArrayLike, labels: ArrayLike, threshold: float = 0.5) -> Array:
    """The share of rollouts on the right side of `threshold` (at the threshold counts as class 1).

    Args:
        probabilities: `[..., n]`.
        labels: `[..., n]` or `[n]`, of 0 and 1.
        threshold: In the unit of `probabilities`.

    Returns:
        `[...]`; NaN for no rollouts.
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    right = (probabilities >= threshold) == _labels(labels, probabilities.shape)
    return np.asarray(right.mean(-1)) if right.shape[-1] else np.full(right.shape[:-1], math.nan)


def expected_calibration_error(
    probabilities: ArrayLike, labels: ArrayLike, bins: int = 10, counts: ArrayLike | None = None
) -> Array:
    """ECE: Σ over bins of (share of rollouts in the bin) × |mean probability − share of class 1|.

    The bins are `bins` of equal width over the probability of class 1: [0, 1/bins), …, [1 − 1/bins, 1].
    With few rollouts a bin the figure is biased upwards (a perfectly calibrated probe scores above 0).

    Args:
        probabilities: `[..., n]`, of class 1, in [0, 1].
        labels: `[..., n]` or `[n]`, of 0 and 1.
        bins: Number of bins.
        counts: `[resample, n]`, as `bootstrap_counts` gives them; the ECE of each resample is then returned.

    Returns:
        `[...]`, or `[..., resample]` if there are counts; NaN for no rollouts.
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    if not probabilities.shape[-1]:
        return np.full(probabilities.shape[:-1], math.nan)
    gaps = probabilities - _labels(labels, probabilities.shape)
    weights = np.ones((1, probabilities.shape[-1])) if counts is None else np.asarray(counts, np.float64)
    place = np.clip(np.floor(probabilities * bins), 0, bins - 1)
    total = np.zeros((*probabilities.shape[:-1], len(weights)))
    for index in range(bins):
        total += np.abs(np.where(place == index, gaps, 0.0) @ weights.T)
    total /= weights.sum(-1)
    return total[..., 0] if counts is None else total


def bootstrap_counts(
    n: int, resamples: int = 1000, seed: int | np.random.Generator = 0, strata: ArrayLike | None = None
) -> Array:
    """How often each of `n` rollouts is drawn in each resample.

    Args:
        n: Number of rollouts.
        resamples: Number of resamples.
        seed: Of the draws, or a generator to draw from.
        strata: `[n]`; if given, each stratum keeps its size (stratify by the label where both classes are
            needed).

    Returns:
        `[resample, n]`; every row sums to `n`.
    """
    generator = np.random.default_rng(seed)
    labels = np.zeros(n, dtype=np.int64) if strata is None else np.asarray(strata)
    if labels.shape != (n,):
        raise CliffscopeError(f"strata: expected {n} values, one a rollout, found shape {labels.shape}.")
    counts = np.zeros((resamples, n))
    for stratum in np.unique(labels):
        members = np.flatnonzero(labels == stratum)
        even = np.full(len(members), 1 / len(members))
        counts[:, members] = generator.multinomial(len(members), even, size=resamples)
    return counts


def bootstrap_auroc(scores: ArrayLike, labels: ArrayLike, counts: ArrayLike) -> Array:
    """The AUROC of every resample, exact.

    Args:
        scores: `[..., n]`.
        labels: `[n]`, of 0 and 1, the same for all leading axes.
        counts: `[resample, n]`, stratified by the labels or not.

    Returns:
        `[..., resample]`; NaN where a resample lacks a class.
    """
    scores = np.asarray(scores, dtype=np.float64)
    positive = _labels(labels, scores.shape[-1:])
    drawn = np.asarray(counts, dtype=np.float64)
    drawn_positive, drawn_negative = drawn[:, positive], drawn[:, ~positive]
    flat = scores.reshape(-1, scores.shape[-1])
    result = np.empty((len(flat), len(drawn)))
    pairs = drawn_positive.sum(-1) * drawn_negative.sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        for row, values in enumerate(flat):
            above, below = values[positive, None], values[None, ~positive]
            wins = (above > below) + 0.5 * (above == below)
            result[row] = ((drawn_positive @ wins) * drawn_negative).sum(-1) / pairs
    result[np.isnan(flat).any(-1)] = math.nan
    return result.reshape(*scores.shape[:-1], len(drawn))


def percentile_bounds(samples: ArrayLike, confidence: float = 0.95) -> tuple[Array, Array]:
    """The percentile bounds of bootstrap samples along the last axis: `(low [...], high [...])`."""
    tail = (1 - confidence) / 2
    bounds = np.quantile(np.asarray(samples, dtype=np.float64), [tail, 1 - tail], axis=-1)
    return bounds[0, ...], bounds[1, ...]


def bootstrap_interval(
    values: ArrayLike,
    statistic: Callable[[NDArray[Any]], ArrayLike] | None = None,
    *,
    strata: ArrayLike | None = None,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int | np.random.Generator = 0,
) -> Interval:
    """The bootstrap interval of a statistic over rollouts: studentized for the mean, else of percentiles.

    Args:
        values: `[n, ...]`, one entry a rollout.
        statistic: Maps `[resample, n, ...]` to `[resample]`; the mean of `values [n]` if `None`. Percentiles cover the
            truth too seldom where rollouts are few.
        strata: `[n]`, as in `bootstrap_counts`.
        resamples: Number of resamples.
        confidence: Of the interval.
        seed: Of the draws, or a generator to draw from.

    Returns:
        The interval; undefined, with the reason, for fewer than two rollouts or a statistic that is NaN.
    """
    data = np.asarray(values)
    n = len(data)
    if n < 2:
        return Interval.undefined(f"{n} rollout{'s' * (n != 1)}")
    counts = bootstrap_counts(n, resamples, seed, strata)
    if statistic is None and strata is None:
        low, high = studentized_bounds([(data.astype(np.float64)[:, None], np.ones(n), counts)], confidence)
        if np.isnan(low[0]):
            return Interval.undefined("the statistic is undefined in some resamples")
        return Interval(float(low[0]), float(high[0]))
    if statistic is None:
        samples = counts @ np.asarray(data, dtype=np.float64) / n
    else:
        drawn = np.repeat(np.tile(np.arange(n), resamples), counts.astype(np.int64).ravel()).reshape(-1, n)
        step = max(1, 4_000_000 // max(1, data.size))
        parts = [statistic(data[drawn[i : i + step]]) for i in range(0, resamples, step)]
        samples = np.concatenate([np.asarray(part, dtype=np.float64) for part in parts])
    if np.isnan(samples).any():
        return Interval.undefined("the statistic is undefined in some resamples")
    low, high = percentile_bounds(samples, confidence)
    return Interval(float(low), float(high))


def bootstrap_band(
    values: ArrayLike,
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int | np.random.Generator = 0,
) -> tuple[Array, Array]:
    """Pointwise bootstrap bounds of a mean curve over rollouts, as `bootstrap_interval` has them.

    Args:
        values: `[n, ...]`, one curve a rollout, without NaN.
        resamples: Number of resamples.
        confidence: Of each point's interval.
        seed: Of the draws, or a generator to draw from.

    Returns:
        `(low [...], high [...])`; NaN for fewer than two rollouts.
    """
    data = np.asarray(values, dtype=np.float64)
    if len(data) < 2:
        nothing = np.full(data.shape[1:], math.nan)
        return nothing, nothing.copy()
    counts = bootstrap_counts(len(data), resamples, seed)
    flat = data.reshape(len(data), -1)
    low, high = studentized_bounds([(flat, np.ones(len(data)), counts)], confidence)
    return low.reshape(data.shape[1:]), high.reshape(data.shape[1:])


def proportion_interval(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion (Wilson 1927); undefined for `n` = 0."""
    if not 0 <= successes <= n:
        raise CliffscopeError(f"a proportion needs 0 <= successes <= n, found {successes} of {n}.")
    if n == 0:
        return Interval.undefined("0 rollouts")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = successes / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At the ends one bound is the share itself; rounding must not leave it outside.
    low = 0.0 if successes == 0 else max(0.0, middle - half)
    high = 1.0 if successes == n else min(1.0, middle + half)
    return Interval(low, high)


def score_interval_of_auroc(area: float, n_positive: int, n_negative: int, confidence: float = 0.95) -> Interval:
    """Newcombe's score-type interval of an AUROC (Statistics in Medicine 2006, method 5).

    It solves |θ − area| = z · se(θ) with the Hanley–McNeil variance, both class sizes replaced by their mean;
    it stays open at an AUROC of 0 or 1. Undefined for fewer than two rollouts of a class.
    """
    if min(n_positive, n_negative) < 2:
        return Interval.undefined(f"{n_positive} rollouts of class 1 and {n_negative} of class 0")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    mean_less_one = (n_positive + n_negative) / 2 - 1

    def excess(theta: float) -> float:
        spread = 1 + mean_less_one * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return abs(theta - area) - z * math.sqrt(theta * (1 - theta) * spread / (n_positive * n_negative))

    def bound(outer: float) -> float:
        inside, outside = area, outer
        for _ in range(60):
            middle = (inside + outside) / 2
            inside, outside = (inside, middle) if excess(middle) > 0 else (middle, outside)
        return (inside + outside) / 2

    return Interval(0.0 if area <= 0 else bound(0.0), 1.0 if area >= 1 else bound(1.0))


def auroc_interval(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int | np.random.Generator = 0,
) -> Interval:
    """The interval of one AUROC: its standard error by a stratified bootstrap over rollouts, on the logit scale.

    Percentiles of the resampled AUROCs cover the truth too seldom near 1. Where every resample gives the same AUROC
    (classes that do not overlap), the bootstrap knows nothing about the overlap and `score_interval_of_auroc` is
    returned instead.

    Args:
        scores: `[n]`.
        labels: `[n]`, of 0 and 1.
        resamples: Number of resamples.
        confidence: Of the interval.
        seed: Of the draws, or a generator to draw from.

    Returns:
        The interval; undefined, with the reason, for fewer than two rollouts of a class or NaN scores.
    """
    values = np.asarray(scores, dtype=np.float64)
    positive = _labels(labels, values.shape)
    counts = bootstrap_counts(len(values), resamples, seed, positive)
    return interval_of_resampled_auroc(
        float(auroc(values, positive)), bootstrap_auroc(values, positive, counts), positive, confidence
    )


def interval_of_resampled_auroc(
    area: float, samples: ArrayLike, labels: ArrayLike, confidence: float = 0.95
) -> Interval:
    """The interval of an AUROC from its bootstrap samples `[resample]`, as `auroc_interval` defines it."""
    samples = np.asarray(samples, dtype=np.float64)
    positive = _labels(labels, np.shape(labels))
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if min(n_positive, n_negative) < 2:
        return Interval.undefined(f"{n_positive} rollouts of class 1 and {n_negative} of class 0")
    if np.isnan(samples).any():
        return Interval.undefined("some scores are NaN")
    if samples.min() == samples.max() or not 0 < area < 1:
        return score_interval_of_auroc(area, n_positive, n_negative, confidence)
    middle = math.log(area / (1 - area))
    half = NormalDist().inv_cdf((1 + confidence) / 2) * float(samples.std()) / (area * (1 - area))
    return Interval(_share(middle - half), _share(middle + half))


def _share(logit: float) -> float:
    return 1 / (1 + math.exp(-logit)) if logit > -700 else 0.0


def _labels(labels: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """`labels` as booleans of the given shape; raises for anything but 0 and 1."""
    raw = np.asarray(labels)
    if raw.dtype != np.bool_ and not np.isin(raw, (0, 1)).all():
        raise CliffscopeError("labels: expected only 0 and 1.")
    if raw.shape[-1:] != shape[-1:]:
        raise CliffscopeError(f"labels: expected {shape[-1]} values, one a rollout, found {raw.shape[-1:]}.")
    return np.broadcast_to(raw.astype(np.bool_), shape)
