"""Means over organisms and seeds, with intervals over seeds.

Seeds are what is drawn anew, so they carry the uncertainty: figures are first averaged over the organisms of a seed,
and the interval is Student's t over the seeds' averages. (A bootstrap of five values is far too narrow.) It takes the
organisms as given: other mechanisms may be found better or worse. Where all seeds agree the interval has no width,
which says that the seeds agree and not that another one would.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd

from cliffbench.cells import INSTANCE, Task, read_cells
from interp.statistics import Interval


def t_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Student's t interval of a mean; undefined for fewer than two values."""
    known = np.array([value for value in values if not math.isnan(value)])
    if len(known) < 2:
        return Interval.undefined(f"{len(known)} seed{'s' * (len(known) != 1)}")
    half = t_quantile((1 + confidence) / 2, len(known) - 1) * float(known.std(ddof=1)) / math.sqrt(len(known))
    return Interval(float(known.mean()) - half, float(known.mean()) + half)


def t_quantile(p: float, df: int) -> float:
    """The quantile of Student's t at `p` in (0.5, 1), by bisection of its distribution.

    For whole `df` the distribution is a finite sum in θ = atan(t/√df) (Abramowitz and Stegun 26.7.3 and 26.7.4).
    """
    low, high = 0.0, NormalDist().inv_cdf(p)
    while _t_distribution(high, df) < p:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_distribution(middle, df) < p else (low, middle)
    return (low + high) / 2


def _t_distribution(t: float, df: int) -> float:
    theta = math.atan(t / math.sqrt(df))
    sine, cosine = math.sin(theta), math.cos(theta)
    if df % 2:
        terms, term = 0.0, cosine
        for k in range(1, (df - 1) // 2 + 1):
            terms += term
            term *= cosine * cosine * (2 * k) / (2 * k + 1)
        inside = 2 / math.pi * (theta + sine * terms)
    else:
        terms, term = 0.0, 1.0
        for k in range(1, df // 2 + 1):
            terms += term
            term *= cosine * cosine * (2 * k - 1) / (2 * k)
        inside = sine * terms
    return (1 + inside) / 2


def mean_over(table: pd.DataFrame, method: str, score: str, organisms: Sequence[str] | None = None) -> dict[str, Any]:
    """A score's mean over organisms and seeds: `mean`, `low`, `high`, `n_seeds`, `n_organisms`.

    Args:
        table: As `cliffbench.run.table_of` gives it.
        method: Whose score.
        score: Which.
        organisms: Over which; all that have it if `None`.
    """
    rows = table[(table["method"] == method) & (table["score"] == score) & table["value"].notna()]
    if organisms is not None:
        rows = rows[rows["organism"].isin(organisms)]
    by_seed = rows.groupby("seed")["value"].mean()
    interval = t_interval(by_seed.tolist())
    return {
        "mean": float(by_seed.mean()) if len(by_seed) else math.nan,
        "low": interval.low,
        "high": interval.high,
        "n_seeds": len(by_seed),
        "n_organisms": int(rows["organism"].nunique()),
    }


def summarize(table: pd.DataFrame, tasks: Sequence[Task]) -> dict[str, Any]:
    """All means, over all organisms and each alone, the heads that were named, and what went wrong."""
    cells = list(read_cells(tasks))
    pairs = table[["method", "score"]].drop_duplicates().itertuples(index=False)
    scores: dict[str, dict[str, Any]] = {}
    for method, score in pairs:
        mine = table[(table["method"] == method) & (table["score"] == score)]
        figures = {name: mean_over(mine, method, score, [name]) for name in sorted(mine["organism"].unique())}
        scores.setdefault(method, {})[score] = {"all": mean_over(mine, method, score), "organisms": figures}
    return {
        "seeds": sorted({task.seed for task in tasks}),
        "fresh": tasks[0].fresh,
        "organisms": {
            name: {key: value for key, value in cell.items() if key in ("planted", "has_cliff", "sparse")}
            for name, cell in sorted(_first_instances(cells).items())
        },
        "scores": scores,
        "named": [
            {"organism": task.organism, "seed": task.seed, "method": method, "heads": cell["named"]}
            for task, method, cell in cells
            if "named" in cell
        ],
        "errors": [
            {"organism": task.organism, "seed": task.seed, "method": method, "error": cell["error"]}
            for task, method, cell in cells
            if "error" in cell
        ],
    }


def _first_instances(cells: Sequence[tuple[Task, str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for task, method, cell in cells:
        if method == INSTANCE and "error" not in cell:
            found.setdefault(task.organism, cell)
    return found
