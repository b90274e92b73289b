"""How often 95 % intervals cover the truth: simulations with the product's functions, at sizes the product is used at.

The distributions are those that its figures have: log-odds and logits are near normal, perplexities and drifts
(KL) skewed to the right, cliffs saturated near 1 with a share of rollouts that refuse, verdicts binary. Where a
sample cannot hold the truth (8 rollouts, of which a tenth are of another kind: in 43 % of samples none of them is) no
interval can be right without assumptions; such settings are in the table and said to be so.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from statistics import NormalDist

import numpy as np

from cliffbench.calibration.results import COVERAGE, Row, coverage_row
from interp.paired import kappa_interval, paired_difference
from interp.significance import difference_and_interval, mean_and_interval
from interp.statistics import (
    Interval,
    auroc,
    bootstrap_auroc,
    bootstrap_counts,
    bootstrap_interval,
    interval_of_resampled_auroc,
    percentile_bounds,
    proportion_interval,
)
from probes.metrics import ProbeMetrics
from selection.evaluation.estimate import Estimate

SIZES = (8, 20, 50, 200)

BEFORE = "what was used before, for comparison"
UNSEEN = "a sample may hold none of the rare cases on which the mean depends"
FEW = "a handful of outcomes: coverage jumps about 95 % however the interval is made"

Draw = Callable[[np.random.Generator, int], np.ndarray]


@dataclass(frozen=True)
class Distribution:
    """What is drawn from, and its mean."""

    name: str
    draw: Draw
    mean: float
    hard: tuple[int, ...] = ()
    """Sizes at which a sample may not show what the mean depends on: reported, not judged."""


def _saturated(rng: np.random.Generator, n: int, share: float) -> np.ndarray:
    """Cliffs: most near 0.85, a share near 0."""
    off = rng.random(n) < share
    return np.clip(np.where(off, rng.normal(0.03, 0.05, n), rng.normal(0.85, 0.08, n)), -1, 1)


def _mean_of(draw: Draw) -> float:
    return float(draw(np.random.default_rng(99), 1_000_000).mean())


MEANS = (
    Distribution("normal (log-odds)", lambda rng, n: rng.normal(1.0, 2.0, n), 1.0),
    Distribution("t, 3 degrees (outliers)", lambda rng, n: rng.standard_t(3, n), 0.0),
    Distribution("exponential (drift)", lambda rng, n: rng.exponential(0.1, n), 0.1),
    Distribution("log-normal, σ = 1 (drift)", lambda rng, n: np.exp(rng.normal(0, 1, n)), math.exp(0.5), hard=(8, 20)),
    Distribution("cliffs, 30 % without", partial(_saturated, share=0.3), _mean_of(partial(_saturated, share=0.3))),
    Distribution(
        "cliffs, 10 % without", partial(_saturated, share=0.1), _mean_of(partial(_saturated, share=0.1)), hard=(8, 20)
    ),
)


@dataclass(frozen=True)
class Options:
    """How much is simulated.

    Attributes:
        simulations: Of each setting.
        sizes: Of the samples.
        seed: Of everything.
    """

    simulations: int = 4000
    sizes: tuple[int, ...] = SIZES
    seed: int = 0


def coverage(options: Options | None = None) -> Iterator[Row]:
    """All settings, one row each."""
    options = options or Options()
    for simulate in (_proportions, _means, _clustered, _differences, _areas, _paired, _clustered_pairs, _kappas):
        yield from simulate(options)


def _generator(options: Options, *place: int) -> np.random.Generator:
    return np.random.default_rng([options.seed, *place])


def _covered(low: np.ndarray, high: np.ndarray, truth: float) -> np.ndarray:
    return (low <= truth) & (truth <= high)


def _proportions(options: Options) -> Iterator[Row]:
    """Wilson's interval: exact, by the sum over all outcomes, as ASR, guard and judge have it."""
    shares = np.linspace(0.005, 0.995, 199)
    for n in options.sizes:
        covers = np.array([[share in proportion_interval(k, n) for k in range(n + 1)] for share in shares.tolist()])
        ways = np.array([math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(n + 1)])
        k = np.arange(n + 1)
        weights = np.exp(ways + k * np.log(shares)[:, None] + (n - k) * np.log1p(-shares)[:, None])
        exact = (covers * weights).sum(1)
        name = "Wilson: rates (ASR, guard, accuracy)"
        yield _exact(name, "mean over rates 0.005 to 0.995", n, float(exact.mean()))
        for share in (0.02, 0.1, 0.5):
            place = int(np.argmin(np.abs(shares - share)))
            # One rate and n give few outcomes: the coverage jumps about 95 % however an interval is made.
            yield _exact(name, f"rate {share:g}, exact", n, float(exact[place]), FEW if n * share < 5 else "")


def _exact(statistic: str, setting: str, n: int, rate: float, note: str = "") -> Row:
    return Row("coverage", statistic, setting, n, 0, rate, Interval(rate, rate), note, *COVERAGE)


def _means(options: Options) -> Iterator[Row]:
    """`mean_and_interval` many columns at a time; `bootstrap_interval` and `Estimate` are the same interval."""
    for number, kind in enumerate(MEANS):
        for n in options.sizes:
            rng = _generator(options, 1, number, n)
            values = kind.draw(rng, n * options.simulations).reshape(n, options.simulations)
            _, low, high = mean_and_interval(values, seed=int(rng.integers(2**31)))
            covered = _covered(low, high, kind.mean)
            yield coverage_row("mean", kind.name, covered, n=n, note=UNSEEN if n in kind.hard else "")
            drawn = bootstrap_counts(n) @ values / n
            covered = _covered(*percentile_bounds(drawn.T), kind.mean)
            yield coverage_row("mean, percentiles", kind.name, covered, n=n, note=BEFORE)
    few = min(300, options.simulations)
    for name, interval in (("mean: cliff, curve, dose", _of_bootstrap), ("mean: evaluate, select", _of_estimate)):
        kind = MEANS[2]
        rng = _generator(options, 2)
        found = [kind.mean in interval(kind.draw(rng, 20), seed) for seed in range(few)]
        yield coverage_row(name, kind.name, found, n=20)


def _of_bootstrap(values: np.ndarray, seed: int) -> Interval:
    return bootstrap_interval(values, seed=seed)


def _of_estimate(values: np.ndarray, seed: int) -> Interval:
    return Interval(*Estimate.of(values, np.ones(len(values)), seed=seed).bounds)


def _clustered(options: Options) -> Iterator[Row]:
    """Rollouts of a prompt hang together; clusters are of 1 to 6 rollouts, and hold half of the variance."""
    for clusters in (5, *options.sizes[:3]):
        covered = []
        rng = _generator(options, 3, clusters)
        columns = 50
        for _ in range(max(1, options.simulations // columns)):
            labels = np.repeat(np.arange(clusters), rng.integers(1, 7, size=clusters))
            shared = rng.normal(size=(clusters, columns))[labels]
            values = 1.0 + shared + rng.normal(size=(len(labels), columns))
            _, low, high = mean_and_interval(values, clusters=labels, seed=int(rng.integers(2**31)))
            covered.append((low <= 1.0) & (high >= 1.0))
        # With 5 clusters and random sizes there are fewer than 4 degrees of freedom in effect.
        yield coverage_row("mean, clustered", "normal, 1–6 rollouts a prompt", np.concatenate(covered), n=clusters)


def _differences(options: Options) -> Iterator[Row]:
    """Excess fall, and differences between groups."""
    for number, (n, m) in enumerate(((8, 8), (20, 20), (8, 50), (50, 50), (200, 50))):
        if max(n, m) > max(options.sizes):
            continue
        for name, spread, skewed in (("normal, same spread", 1.0, False), ("exponential, threefold spread", 3.0, True)):
            rng = _generator(options, 4, number, int(skewed))
            covered = []
            for seed in range(options.simulations):
                one, two = (rng.exponential(size=k) if skewed else rng.normal(size=k) for k in (n, m))
                _, low, high = difference_and_interval(one * spread, two, seed=seed)
                truth = spread - 1.0 if skewed else 0.0
                covered.append(low <= truth <= high)
            yield coverage_row("difference of means: excess fall", f"{name}; {n} and {m}", covered, n=min(n, m))


def _areas(options: Options) -> Iterator[Row]:
    """AUROC of two normal classes, also near 1, by both doors."""
    for number, (n, m) in enumerate(((8, 8), (20, 20), (20, 100), (50, 50), (200, 200))):
        if max(n, m) > max(options.sizes):
            continue
        for place, apart in enumerate((0.0, 1.0, 2.9)):
            truth = NormalDist().cdf(apart / math.sqrt(2))
            rng = _generator(options, 5, number, place)
            labels = np.repeat([1, 0], [n, m])
            covered, before = [], []
            for seed in range(options.simulations):
                scores = rng.normal(size=n + m) + apart * labels
                samples = bootstrap_auroc(scores, labels, bootstrap_counts(n + m, 400, seed, labels))
                interval = interval_of_resampled_auroc(float(auroc(scores, labels)), samples, labels)
                low, high = percentile_bounds(samples)
                before.append(bool(low <= truth <= high) if low < high else truth in interval)
                covered.append(truth in interval)
            setting = f"truth {truth:.3f}; {n} and {m}"
            yield coverage_row("AUROC", setting, covered, n=min(n, m))
            yield coverage_row("AUROC, percentiles", setting, before, n=min(n, m), note=BEFORE)
    rng = _generator(options, 6)
    labels = np.repeat([1, 0], 20)
    found = []
    for seed in range(options.simulations // 2):
        metrics = ProbeMetrics.of_logits(rng.normal(size=40), labels, resamples=400, seed=seed)
        found.append((0.5 in metrics.auroc_interval, 0.5 in metrics.accuracy_interval))
    for name, column in zip(("AUROC", "accuracy"), np.array(found).T, strict=True):
        yield coverage_row(f"{name} of a probe", "truth 0.5; 20 and 20", column, n=20)


def _paired(options: Options) -> Iterator[Row]:
    """Paired differences of rates: evaluate and compare."""
    for number, (rate, change) in enumerate(((0.5, 0.4), (0.1, 0.2), (0.3, 0.6), (0.9, 0.1))):
        truth = change * (0.7 - rate)
        for n in options.sizes:
            rng = _generator(options, 7, number, n)
            covered, before = [], []
            for seed in range(options.simulations):
                first, second = _pair(rng, n, rate, change)
                covered.append(truth in paired_difference(first, second).interval)
                if seed < options.simulations // 2:
                    drawn = bootstrap_counts(n, 500, seed) @ (second * 1.0 - first) / n
                    low, high = percentile_bounds(drawn)
                    before.append(bool(low <= truth <= high) if low < high else covered[-1])
            differ = n * change * (rate * 0.3 + (1 - rate) * 0.7)
            setting = f"rate {rate:g}, {change:.0%} drawn anew ({differ:.0f} differ)"
            # Where few prompts differ there are few outcomes, and Newcombe's interval is on the safe side.
            yield coverage_row("paired difference", setting, covered, n=n, note=FEW if differ < 6 else "")
            yield coverage_row("paired difference, percentiles", setting, before, n=n, note=BEFORE)


def _pair(rng: np.random.Generator, n: int, rate: float, change: float) -> tuple[np.ndarray, np.ndarray]:
    first = rng.random(n) < rate
    return first, np.where(rng.random(n) < change, rng.random(n) < 0.7, first)


def _clustered_pairs(options: Options) -> Iterator[Row]:
    for clusters in options.sizes[1:3]:
        rng = _generator(options, 8, clusters)
        covered = []
        for seed in range(options.simulations):
            rates = rng.beta(2, 2, size=clusters).repeat(4)
            first, second = rng.random(len(rates)) < rates, rng.random(len(rates)) < np.sqrt(rates)
            labels = np.repeat(np.arange(clusters), 4)
            found = paired_difference(first, second, clusters=labels, resamples=500, seed=seed).interval
            # E √X − E X of a Beta(2, 2): B(2.5, 2) / B(2, 2) − 1/2.
            covered.append(24 / 35 - 0.5 in found)
        yield coverage_row("paired difference, clustered", "4 rollouts a prompt", covered, n=clusters)


def _kappas(options: Options) -> Iterator[Row]:
    """Agreement of a judge with labels: κ = 0.6 at even rates."""
    for n in options.sizes[1:]:
        rng = _generator(options, 9, n)
        covered = []
        for seed in range(options.simulations):
            first = rng.random(n) < 0.5
            found = kappa_interval(first, first ^ (rng.random(n) < 0.2), resamples=500, seed=seed)
            covered.append(found.reason is not None or 0.6 in found)
        yield coverage_row("Cohen's κ", "κ = 0.6", covered, n=n)
