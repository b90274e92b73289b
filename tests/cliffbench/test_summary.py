"""Means over organisms and seeds: intervals against scipy, and what is averaged first."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cliffbench.summary import mean_over, t_interval, t_quantile


@pytest.mark.parametrize("df", [1, 2, 3, 4, 7, 30])
@pytest.mark.parametrize("p", [0.6, 0.95, 0.975, 0.995])
def test_the_quantiles_are_those_of_scipy(df: int, p: float) -> None:
    assert t_quantile(p, df) == pytest.approx(stats.t.ppf(p, df), rel=1e-8)


def test_the_interval_is_that_of_scipy() -> None:
    values = [0.7, 0.9, 0.85, 1.0, 0.65]
    expected = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
    assert tuple(t_interval(values)) == pytest.approx(expected)


def test_it_covers_the_mean_as_often_as_it_says() -> None:
    draws = np.random.default_rng(0).normal(0.3, 0.2, size=(2000, 5))
    covered = np.mean([0.3 in t_interval(row.tolist()) for row in draws])
    assert 0.935 < covered < 0.965


def test_one_seed_has_no_interval() -> None:
    assert t_interval([0.5]).reason == "1 seed" and math.isnan(t_interval([0.5]).low)
    assert t_interval([0.5, math.nan]).reason == "1 seed"


def table(rows: list[tuple[str, int, float]]) -> pd.DataFrame:
    made = [(organism, seed, "mine", "heads", "recall", value) for organism, seed, value in rows]
    return pd.DataFrame(made, columns=["organism", "seed", "method", "group", "score", "value"])


def test_organisms_are_averaged_within_a_seed() -> None:
    found = mean_over(table([("a", 0, 1.0), ("b", 0, 0.0), ("a", 1, 1.0), ("b", 1, 1.0)]), "mine", "recall")
    assert found["mean"] == 0.75 and (found["n_seeds"], found["n_organisms"]) == (2, 2)
    expected = t_interval([0.5, 1.0])
    assert (found["low"], found["high"]) == (expected.low, expected.high)


def test_what_is_unknown_is_left_out_and_others_are_not_counted() -> None:
    rows = table([("a", 0, 1.0), ("b", 0, math.nan), ("c", 0, 0.0)])
    assert mean_over(rows, "mine", "recall", ["a", "b"])["mean"] == 1.0
    assert math.isnan(mean_over(rows, "other", "recall")["mean"])
