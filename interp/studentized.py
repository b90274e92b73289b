"""Intervals of means that also hold for few cases: the studentized bootstrap, never narrower than Student's t.

A percentile bootstrap covers too seldom where cases, or clusters of them, are few: with 8 normal values a 95 % interval
covers the mean in 89 % of samples, with 8 exponential ones in 84 % (`cliffscope bench calibrate` measures it). It takes
the sample's spread for the population's and leaves out how uncertain that spread is. Here each resample's mean is
divided by its own standard error, and the quantiles of these ratios are put in place of the normal ones (bootstrap-t;
Efron and Tibshirani 1993, chapter 12). Two departures, since these ratios run off where a resample happens to hold
nearly equal values: a quantile is never nearer to zero than Student's, and never more than `MOST` times as far.
"""

import math
from collections.abc import Sequence
from functools import cache
from statistics import NormalDist

import numpy as np
from jaxtyping import Float

MOST = 3.0
"""How many times as far from the mean as Student's t a bound may lie."""
_ENTRIES = 4_000_000
"""Most floats of one array of resamples: what bounds the memory."""

Sample = tuple[Float[np.ndarray, "_ _"], Float[np.ndarray, " _"], Float[np.ndarray, "_ _"]]
"""`[cluster, column]` sums, `[cluster]` how many cases each has, `[resample, cluster]` how often each is drawn."""


@cache
def student_quantile(probability: float, freedom: float) -> float:
    """The quantile of Student's t with any number of degrees of freedom, to seven digits.

    With t = √ν tan θ its density is proportional to cos^(ν − 1) θ, which is summed on a grid.

    Args:
        probability: In (0, 1).
        freedom: Degrees of freedom, at least 1; beyond 2,000 the normal quantile is returned.
    """
    if freedom > 2000:
        return NormalDist().inv_cdf(probability)
    if probability < 0.5:
        return -student_quantile(1 - probability, freedom)
    angle = np.linspace(0.0, min(math.pi / 2, 40 / math.sqrt(freedom)), 40_001)  # beyond, there is nothing
    density = np.cos(angle) ** (freedom - 1)
    # Simpson's rule over pairs of steps.
    share = np.concatenate([[0.0], np.cumsum(density[:-2:2] + 4 * density[1:-1:2] + density[2::2])])
    found = np.interp(2 * probability - 1, share / share[-1], angle[::2])
    return math.sqrt(freedom) * math.tan(float(found))


def studentized_bounds(
    samples: Sequence[Sample], confidence: float = 0.95
) -> tuple[Float[np.ndarray, " column"], Float[np.ndarray, " column"]]:
    """The bounds of a mean, or of the mean of a first sample minus that of a second one.

    A mean is that over cases, Σ sums / Σ sizes; its standard error is that of a ratio over independent clusters. The
    degrees of freedom are the clusters less one; of a difference, Welch's (1947).

    Args:
        samples: One, or two that are independent; each of at least two clusters.
        confidence: Of the interval.

    Returns:
        Low and high; both the mean itself where all clusters agree, and NaN where a sum is NaN.
    """
    parts = [_mean_and_variance(sums, sizes, np.ones((1, len(sizes)))) for sums, sizes, _ in samples]
    signs = (1.0, -1.0)[: len(parts)]
    value = sum(sign * mean[0] for sign, (mean, _) in zip(signs, parts, strict=True))
    variances = np.stack([variance[0] for _, variance in parts])
    error = np.sqrt(variances.sum(0))
    tail = (1 + confidence) / 2
    least = np.array([student_quantile(tail, freedom) for freedom in _freedom(variances, samples)])
    columns = value.shape[0]
    low, high = np.empty(columns), np.empty(columns)
    step = max(1, _ENTRIES // len(samples[0][2]))
    for start in range(0, columns, step):
        some = slice(start, start + step)
        drawn = [_mean_and_variance(sums[:, some], sizes, counts) for sums, sizes, counts in samples]
        moved = sum(sign * mean for sign, (mean, _) in zip(signs, drawn, strict=True)) - value[some]
        spread = np.sqrt(sum(variance for _, variance in drawn))
        # What differs by rounding alone does not differ; a resample without any spread lies beyond all bounds.
        moved = np.where(np.abs(moved) <= 1e-12 * (1 + np.abs(value[some])), 0.0, moved)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = np.where(moved == 0, 0.0, moved / spread)
        ratios = np.clip(np.where(np.isnan(moved), 0.0, ratios), -MOST * least[some], MOST * least[some])
        lower, upper = np.quantile(ratios, [1 - tail, tail], axis=0)
        low[some] = value[some] - np.maximum(upper, least[some]) * error[some]
        high[some] = value[some] - np.minimum(lower, -least[some]) * error[some]
    return low, high


def _mean_and_variance(
    sums: Float[np.ndarray, "cluster column"],
    sizes: Float[np.ndarray, " cluster"],
    counts: Float[np.ndarray, "resample cluster"],
) -> tuple[Float[np.ndarray, "resample column"], Float[np.ndarray, "resample column"]]:
    """The mean of every resample, and the square of its standard error."""
    # About the mean, so that squares do not cancel.
    centre = sums.sum(0) / sizes.sum()
    off = sums - centre * sizes[:, None]
    total = (counts @ sizes)[:, None]
    moved = (counts @ off) / total
    squares = counts @ off**2 - 2 * moved * (counts @ (off * sizes[:, None])) + moved**2 * (counts @ sizes**2)[:, None]
    n = len(sizes)
    variance = np.maximum(squares, 0.0) * n / (n - 1) / total**2
    # Below this it is rounding.
    floor = 1e-24 * (np.abs(centre) + np.abs(off).max(0)) ** 2
    return centre + moved, np.where(variance <= floor, 0.0, variance)


def _freedom(variances: Float[np.ndarray, "sample column"], samples: Sequence[Sample]) -> list[float]:
    own = np.array([len(sizes) - 1.0 for _, sizes, _ in samples])
    if len(samples) == 1:
        return [float(own[0])] * variances.shape[1]
    below = (variances**2 / own[:, None]).sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        welch = np.where(below > 0, variances.sum(0) ** 2 / below, own.sum())
    # Rounded down, so that few quantiles have to be computed.
    return [max(1.0, float(math.floor(value))) if math.isfinite(value) else 1.0 for value in welch]
