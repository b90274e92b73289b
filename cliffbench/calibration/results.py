"""Rows of the calibration table: how often something came up in how many runs, and how often it may."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from interp.statistics import Interval, bootstrap_interval, proportion_interval
from interp.table_files import TableFormat

LEVEL = 0.05
MOST_P = 0.07
"""Of p < 0.05 under a null."""
MOST_CLAIMS = 0.05
"""Of runs that claim something where there is nothing."""
COVERAGE = (0.92, 0.98)
"""Of 95 % intervals that cover the truth."""

COLUMNS = ("kind", "statistic", "setting", "n", "runs", "rate", "low", "high", "least", "most", "within", "note")
FORMAT = TableFormat("cliffscope.calibration", "1", "a calibration", "run the calibration again", COLUMNS)


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        kind: `p` (share of p < 0.05), `claims` (share of runs with a claim) or `coverage`.
        statistic: What is tested.
        setting: Where.
        n: Cases, rollouts or prompts of a run; 0 if that is said in the setting.
        runs: Independent runs or simulations.
        rate: The share.
        interval: Of `rate`, over runs.
        note: Why the range is not asked for here; empty where it is.
        least, most: The range.
    """

    kind: str
    statistic: str
    setting: str
    n: int
    runs: int
    rate: float
    interval: Interval = field(default_factory=lambda: Interval.undefined("none"))
    note: str = ""
    least: float = 0.0
    most: float = 1.0

    @property
    def within(self) -> bool:
        """Whether the rate lies in the range; NaN, where nothing was ever printed, does too."""
        return math.isnan(self.rate) or self.least <= self.rate <= self.most

    @property
    def clearly_outside(self) -> bool:
        """Whether the range is asked for, and missed by more than the runs can err."""
        return not self.note and (self.interval.high < self.least or self.interval.low > self.most)


def p_row(statistic: str, setting: str, p: ArrayLike, *, n: int = 0, note: str = "") -> Row:
    """The share of p < 0.05.

    Args:
        statistic: What was tested.
        setting: Under which null.
        p: `[run]` or `[run, test]`; NaN is a p that was not printed and counts as none below.
        n: Cases of a run.
        note: See `Row`.
    """
    below = np.asarray(p, dtype=np.float64) < LEVEL
    rates = below.reshape(len(below), -1).mean(1)
    interval = _over_runs(rates)
    return Row("p", statistic, setting, n, len(rates), float(rates.mean()), interval, note, 0.0, MOST_P)


def claim_row(statistic: str, setting: str, claimed: ArrayLike, *, n: int = 0, note: str = "") -> Row:
    """The share of runs `[run]` in which something was claimed."""
    found = np.asarray(claimed, dtype=bool)
    interval = proportion_interval(int(found.sum()), len(found))
    return Row("claims", statistic, setting, n, len(found), float(found.mean()), interval, note, 0.0, MOST_CLAIMS)


def coverage_row(statistic: str, setting: str, covered: ArrayLike, *, n: int, note: str = "") -> Row:
    """The share of intervals `[simulation]` that cover the truth."""
    found = np.asarray(covered, dtype=bool)
    interval = proportion_interval(int(found.sum()), len(found))
    return Row("coverage", statistic, setting, n, len(found), float(found.mean()), interval, note, *COVERAGE)


def table_of(rows: Iterable[Row]) -> pd.DataFrame:
    """One row a figure; the columns are `COLUMNS`."""
    found = [
        {
            "kind": row.kind,
            "statistic": row.statistic,
            "setting": row.setting,
            "n": row.n,
            "runs": row.runs,
            "rate": row.rate,
            "low": row.interval.low,
            "high": row.interval.high,
            "least": row.least,
            "most": row.most,
            "within": row.within,
            "note": row.note,
        }
        for row in rows
    ]
    return pd.DataFrame(found, columns=list(COLUMNS))


def outside(rows: Sequence[Row]) -> list[Row]:
    """The figures that miss the range asked for."""
    return [row for row in rows if not row.note and not row.within]


def _over_runs(rates: np.ndarray) -> Interval:
    """The interval of a mean rate: Wilson's for one test a run, else over runs, whose tests hang together."""
    if len(rates) and np.isin(rates, (0.0, 1.0)).all():
        return proportion_interval(int(rates.sum()), len(rates))
    low, high = bootstrap_interval(rates, resamples=400)
    return Interval(max(0.0, low), min(1.0, high))
