"""Means over cases: their bootstrap interval, their sign-flip permutation p, and Benjamini–Hochberg over many of them.

If a mean is zero because each case is as likely to come out positive as negative, then flipping the signs of cases at
random gives means as large as the one observed. (The test is exact where the values are symmetric about zero under the
null hypothesis, as differences of exchangeable pairs are.) Cases that belong together, such as rollouts of one prompt,
are flipped, and drawn, together.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from interp.errors import CliffscopeError
from interp.statistics import bootstrap_counts
from interp.studentized import studentized_bounds

_ENTRIES = 4_000_000
"""Most floats of one matrix product: what bounds the memory."""


def sign_flip_p(
    values: Float[np.ndarray, "case *rest"],
    *,
    clusters: Sequence[Any] | NDArray[Any] | None = None,
    flips: int = 9999,
    seed: int = 0,
) -> Float[np.ndarray, "*rest"]:
    """Two-sided sign-flip permutation p of a mean over cases: (1 + flips with as large a |mean|) / (1 + flips).

    Where no more than `flips` other patterns of signs exist, all of them are tried once and p is exact.

    Args:
        values: One entry a case; each of `rest` is tested alone.
        clusters: `[case]` labels; cases with the same label are flipped together. Each its own if `None`.
        flips: Patterns of signs to try.
        seed: Of the patterns. The same patterns serve all of `rest`.

    Returns:
        p; NaN where a value is NaN or there is no case.

    Raises:
        CliffscopeError: If there is not one label a case.
    """
    sums, _ = cluster_sums(values, clusters)
    observed = np.abs(sums.sum(0))
    # A tie must count as one although the sums were rounded in another order.
    least = observed - 1e-12 * np.abs(sums).sum(0)
    tried, reached = 0, np.zeros(sums.shape[1], dtype=np.int64)
    for signs in _patterns(len(sums), flips, max(1, _ENTRIES // max(1, *sums.shape)), seed):
        reached += (np.abs(signs @ sums) >= least).sum(0)
        tried += len(signs)
    p = np.where(np.isnan(observed) | (len(sums) == 0), math.nan, (1 + reached) / (1 + tried))
    return p.reshape(values.shape[1:])


def mean_and_interval(
    values: Float[np.ndarray, "case *rest"], *, clusters: Sequence[Any] | NDArray[Any] | None = None, seed: int = 0
) -> tuple[Float[np.ndarray, "*rest"], Float[np.ndarray, "*rest"], Float[np.ndarray, "*rest"]]:
    """The mean over cases, and the low and high end of its bootstrap 95 % interval, whole clusters being drawn.

    The bootstrap is studentized (`interp.studentized`), so that it holds for few clusters too.

    Args:
        values: One entry a case.
        clusters: `[case]` labels; cases with the same label are drawn together. Each its own if `None`.
        seed: Of the draws.

    Returns:
        Mean, low, high; the mean is NaN for no case, low and high for fewer than two clusters.

    Raises:
        CliffscopeError: If there is not one label a case.
    """
    shape = values.shape[1:]
    sums, sizes = cluster_sums(values, clusters)
    unknown = np.full(shape, math.nan)
    mean = (sums.sum(0) / sizes.sum()).reshape(shape) if len(sums) else unknown
    if len(sums) < 2:
        return mean, unknown, unknown
    counts = bootstrap_counts(len(sums), seed=seed)
    low, high = studentized_bounds([(sums, sizes, counts)])
    return mean, low.reshape(shape), high.reshape(shape)


def difference_and_interval(
    first: Float[np.ndarray, " case"],
    second: Float[np.ndarray, " other"],
    *,
    clusters: tuple[Sequence[Any] | NDArray[Any], Sequence[Any] | NDArray[Any]] | None = None,
    seed: int = 0,
) -> tuple[float, float, float]:
    """The mean of one sample minus that of an independent one, and its bootstrap 95 % interval, studentized.

    Args:
        first: One entry a case.
        second: The same.
        clusters: Labels of the cases of either; those with the same label are drawn together. Each its own if `None`.
        seed: Of the draws.

    Returns:
        Difference, low, high; NaN for a sample of no case, low and high for one of fewer than two clusters.

    Raises:
        CliffscopeError: If there is not one label a case.
    """
    if not len(first) or not len(second):
        return math.nan, math.nan, math.nan
    value = float(np.mean(first, dtype=np.float64) - np.mean(second, dtype=np.float64))
    labels = (None, None) if clusters is None else clusters
    sums = [cluster_sums(values, mine) for values, mine in zip((first, second), labels, strict=True)]
    if min(len(sizes) for _, sizes in sums) < 2:
        return value, math.nan, math.nan
    drawn = [
        (total, sizes, bootstrap_counts(len(sizes), seed=seed + number)) for number, (total, sizes) in enumerate(sums)
    ]
    low, high = studentized_bounds(drawn)
    return value, float(low[0]), float(high[0])


def cluster_sums(
    values: Float[np.ndarray, "case *rest"], clusters: Sequence[Any] | NDArray[Any] | None
) -> tuple[Float[np.ndarray, "cluster flat"], Float[np.ndarray, "cluster"]]:
    """The sum of the values of each cluster, `rest` flattened, and how many cases each has.

    Raises:
        CliffscopeError: If there is not one label a case.
    """
    flat = np.asarray(values, dtype=np.float64).reshape(len(values), math.prod(values.shape[1:]))
    if clusters is None:
        return flat, np.ones(len(flat))
    if len(clusters) != len(flat):
        raise CliffscopeError(f"clusters: expected {len(flat)} labels, one a case, found {len(clusters)}.")
    _, index, sizes = np.unique(np.asarray(clusters), return_inverse=True, return_counts=True)
    sums = np.zeros((len(sizes), flat.shape[1]))
    np.add.at(sums, index, flat)
    return sums, sizes.astype(np.float64)


def _patterns(n: int, flips: int, rows: int, seed: int) -> Iterator[Float[np.ndarray, "flip cluster"]]:
    """Patterns of ±1, at most `rows` at a time: all but the observed one if they are few, else random ones."""
    if n == 0:
        return
    # A pattern and its negative give the same |mean|: the last cluster keeps its sign.
    others = 2 ** (n - 1) - 1
    if others <= flips:
        for start in range(1, others + 1, rows):
            numbers = np.arange(start, min(start + rows, others + 1))
            yield 1.0 - 2.0 * (numbers[:, None] >> np.arange(n) & 1)
        return
    generator = np.random.default_rng(seed)
    for start in range(0, flips, rows):
        yield np.where(generator.random((min(rows, flips - start), n)) < 0.5, -1.0, 1.0)


def benjamini_hochberg(p: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Benjamini–Hochberg q: the smallest false discovery rate at which a test would still be rejected.

    Benjamini and Hochberg 1995. All entries are one family; NaN stays NaN and is not counted.
    """
    q = np.full(p.shape, math.nan)
    known = p[~np.isnan(p)]
    order = np.argsort(known, kind="stable")
    raised = known[order] * len(known) / np.arange(1, len(known) + 1)
    adjusted = np.empty_like(known)
    adjusted[order] = np.minimum(np.minimum.accumulate(raised[::-1])[::-1], 1.0)
    q[~np.isnan(p)] = adjusted
    return q
