"""Two runs on the same prompts: McNemar's test, and the interval of the difference of their rates.

Each prompt is its own control, so that what makes prompts easy or hard cancels. Sampled with the same noise (the seeds
of `interp.models.generation` depend on the prompt alone) the runs differ only by what was changed between them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from interp.errors import CliffscopeError
from interp.significance import cluster_sums
from interp.statistics import Interval, bootstrap_counts, proportion_interval
from interp.studentized import studentized_bounds


@dataclass(frozen=True, eq=False)
class Pairs:
    """Outcomes of two runs on the same prompts.

    Attributes:
        ids: The prompts that have an outcome in both.
        first, second: The outcomes.
        left_out: Prompts that have none in one of them.
    """

    ids: tuple[str, ...]
    first: Bool[np.ndarray, " prompt"]
    second: Bool[np.ndarray, " prompt"]
    left_out: int

    @classmethod
    def of(cls, first: Mapping[str, bool | None], second: Mapping[str, bool | None]) -> "Pairs":
        """Pairs outcomes by the prompt's id, in the order of the first; `None` is no outcome.

        Raises:
            CliffscopeError: If no prompt is in both.
        """
        if not first.keys() & second.keys():
            raise CliffscopeError(f"no prompt is in both runs ({len(first)} and {len(second)}): pair runs on the same.")
        ids = [name for name, value in first.items() if value is not None and second.get(name) is not None]
        values = [np.array([bool(run[name]) for name in ids], dtype=np.bool_) for run in (first, second)]
        return cls(tuple(ids), values[0], values[1], len(first.keys() | second.keys()) - len(ids))


@dataclass(frozen=True)
class McNemar:
    """McNemar's test of equal rates.

    Attributes:
        only_first: Prompts true in the first run alone.
        only_second: In the second alone.
        p: Two-sided.
    """

    only_first: int
    only_second: int
    p: float


def mcnemar(first: Bool[np.ndarray, " prompt"], second: Bool[np.ndarray, " again"], *, mid_p: bool = False) -> McNemar:
    """McNemar's exact test (1947): given that a prompt differs, is either run as likely to be the true one?

    Args:
        first: Outcomes of the first run.
        second: Of the second, prompt by prompt.
        mid_p: Count outcomes as extreme as the one observed half (Fagerland et al. 2013): the exact test is
            conservative, and more so the fewer prompts differ.

    Returns:
        The counts and p; p is 1 if no prompt differs.

    Raises:
        CliffscopeError: If there is not one outcome for each prompt in both.
    """
    _check(first, second)
    b, c = int((first & ~second).sum()), int((~first & second).sum())
    n, least = b + c, min(b, c)
    ways = [math.comb(n, k) for k in range(least + 1)]
    # Of 2^n equally likely patterns: those with as large a |b - c|, which at b = c are all.
    as_extreme = ways[-1] * (1 if b == c else 2)
    more_extreme = 2 * sum(ways[:-1])
    if mid_p:
        return McNemar(b, c, 1.0 if n == 0 else (2 * more_extreme + as_extreme) / 2 ** (n + 1))
    return McNemar(b, c, (more_extreme + as_extreme) / 2**n)


@dataclass(frozen=True)
class PairedDifference:
    """The difference of two rates on the same prompts.

    Attributes:
        n: Prompts.
        first: The rate of the first run; NaN without prompts.
        second: Of the second.
        interval: Of `difference`.
        test: McNemar's. It takes prompts as independent, also where the interval draws whole clusters.
    """

    n: int
    first: float
    second: float
    interval: Interval
    test: McNemar

    @property
    def difference(self) -> float:
        """`second - first`."""
        return self.second - self.first


def paired_difference(
    first: Bool[np.ndarray, " prompt"],
    second: Bool[np.ndarray, " again"],
    *,
    clusters: Sequence[Any] | NDArray[Any] | None = None,
    mid_p: bool = False,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> PairedDifference:
    """The difference of the rates of two runs, with its interval: Newcombe's, or a bootstrap over given clusters.

    A bootstrap over single prompts covers the truth too seldom where few of them differ. With clusters it is
    studentized (`interp.studentized`), and where all clusters have the same difference there is no interval.

    Args:
        first: Outcomes of the first run.
        second: Of the second, prompt by prompt.
        clusters: `[prompt]` labels; prompts with the same label are drawn together. Each its own if `None`.
        mid_p: As in `mcnemar`.
        resamples: Number of resamples of clusters.
        confidence: Of the interval.
        seed: Of the draws.

    Raises:
        CliffscopeError: If there is not one outcome for each prompt in both, or not one label.
    """
    _check(first, second)
    n = len(first)
    rates = [float(run.mean()) if n else math.nan for run in (first, second)]
    sums, sizes = cluster_sums((second.astype(np.float64) - first), clusters)
    if len(sums) < 2:
        interval = Interval.undefined(f"{len(sums)} prompt{'s' * (len(sums) != 1)}")
    elif clusters is None:
        interval = newcombe_interval(first, second, confidence)
    else:
        counts = bootstrap_counts(len(sums), resamples, seed)
        low, high = studentized_bounds([(sums, sizes, counts)], confidence)
        interval = Interval(max(-1.0, float(low[0])), min(1.0, float(high[0])))
        if low[0] == high[0]:
            interval = Interval.undefined("every resample gives the same difference")
    return PairedDifference(n, rates[0], rates[1], interval, mcnemar(first, second, mid_p=mid_p))


def newcombe_interval(
    first: Bool[np.ndarray, " prompt"], second: Bool[np.ndarray, " again"], confidence: float = 0.95
) -> Interval:
    """Newcombe's score interval of `second - first` of paired rates (Statistics in Medicine 1998, method 10).

    It joins the Wilson intervals of both rates by their correlation, and stays open where no prompt differs.

    Raises:
        CliffscopeError: If there is not one outcome for each prompt in both.
    """
    _check(first, second)
    n = len(first)
    if n == 0:
        return Interval.undefined("0 prompts")
    rates = [float(second.mean()), float(first.mean())]
    bounds = [proportion_interval(int(run.sum()), n, confidence) for run in (second, first)]
    below = [rate - bound.low for rate, bound in zip(rates, bounds, strict=True)]
    above = [bound.high - rate for rate, bound in zip(rates, bounds, strict=True)]
    phi = _phi(first, second)
    difference = rates[0] - rates[1]
    down = below[0] ** 2 - 2 * phi * below[0] * above[1] + above[1] ** 2
    up = above[0] ** 2 - 2 * phi * above[0] * below[1] + below[1] ** 2
    return Interval(max(-1.0, difference - math.sqrt(max(0.0, down))), min(1.0, difference + math.sqrt(max(0.0, up))))


def _phi(first: Bool[np.ndarray, " prompt"], second: Bool[np.ndarray, " again"]) -> float:
    """The correlation of both, a positive one corrected for continuity; 0 where one of them is constant."""
    n = len(first)
    a, d = int((first & second).sum()), int((~first & ~second).sum())
    b, c = int((first & ~second).sum()), int((~first & second).sum())
    scale = math.sqrt((a + b) * (c + d) * (a + c) * (b + d))
    if scale == 0:
        return 0.0
    excess = float(a * d - b * c)
    return (max(0.0, excess - n / 2) if excess > 0 else excess) / scale


def cohen_kappa(cells: Float[np.ndarray, "*table 2 2"]) -> Float[np.ndarray, "*table"]:
    """Cohen's κ (1960) of tables of counts: agreement beyond what the two rates alone would give.

    Args:
        cells: How often the first said the row and the second the column.

    Returns:
        κ; NaN where chance alone gives full agreement, as where both always say the same.
    """
    total = cells.sum((-2, -1))
    with np.errstate(divide="ignore", invalid="ignore"):
        observed = (cells[..., 0, 0] + cells[..., 1, 1]) / total
        expected = (cells.sum(-1) * cells.sum(-2)).sum(-1) / total**2
        kappa = (observed - expected) / (1 - expected)
    return np.where(np.isfinite(kappa), kappa, math.nan)


def kappa_interval(
    first: Bool[np.ndarray, " rollout"],
    second: Bool[np.ndarray, " again"],
    *,
    clusters: Sequence[Any] | NDArray[Any] | None = None,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """The interval of κ over rollouts: its standard error by the bootstrap, on Fisher's scale artanh κ.

    Percentiles of the resampled κ cover the truth too seldom, as they do for an AUROC.

    Undefined, with the reason, where κ is so in some resamples (a rare verdict is not drawn), or where all resamples
    give the same: never to have seen two judges differ does not show that they never do.

    Args:
        first: Verdicts of the first judge.
        second: Of the second, rollout by rollout.
        clusters: `[rollout]` labels; rollouts with the same label are drawn together. Each its own if `None`.
        resamples: Number of resamples.
        confidence: Of the interval.
        seed: Of the draws.

    Raises:
        CliffscopeError: If there is not one verdict for each rollout in both, or not one label.
    """
    sums, _ = cluster_sums(_one_hot(first, second), clusters)
    if len(sums) < 2:
        return Interval.undefined(f"{len(sums)} rollout{'s' * (len(sums) != 1)}")
    samples = cohen_kappa((bootstrap_counts(len(sums), resamples, seed) @ sums).reshape(-1, 2, 2))
    if np.isnan(samples).any():
        return Interval.undefined("κ is undefined in some resamples: a verdict is too rare")
    kappa = float(cohen_kappa(sums.sum(0).reshape(2, 2)))
    if samples.min() == samples.max() or abs(kappa) == 1:
        return Interval.undefined("every resample gives the same κ")
    half = NormalDist().inv_cdf((1 + confidence) / 2) * float(samples.std()) / (1 - kappa**2)
    return Interval(math.tanh(math.atanh(kappa) - half), math.tanh(math.atanh(kappa) + half))


def confusion(first: Bool[np.ndarray, " rollout"], second: Bool[np.ndarray, " again"]) -> Float[np.ndarray, "2 2"]:
    """How often the first said the row (0 false, 1 true) and the second the column.

    Raises:
        CliffscopeError: If there is not one verdict for each rollout in both.
    """
    return _one_hot(first, second).sum(0)


def _one_hot(
    first: Bool[np.ndarray, " rollout"], second: Bool[np.ndarray, " again"]
) -> Float[np.ndarray, "rollout 2 2"]:
    _check(first, second)
    return np.eye(4)[2 * first.astype(np.int64) + second].reshape(-1, 2, 2)


def _check(first: Bool[np.ndarray, " prompt"], second: Bool[np.ndarray, " again"]) -> None:
    if first.shape != second.shape:
        raise CliffscopeError(f"pairs need one outcome for each prompt in both, found {len(first)} and {len(second)}.")
