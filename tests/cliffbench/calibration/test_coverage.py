"""Intervals cover the truth about as often as they say, by few simulations; what covers too seldom is caught."""

import math

import numpy as np
import pytest

from cliffbench.calibration.coverage import BEFORE, MEANS, Options, coverage
from cliffbench.calibration.results import COVERAGE, Row

SIMULATIONS = 200


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return list(coverage(Options(SIMULATIONS, sizes=(8, 20))))


def beyond_chance(row: Row) -> bool:
    """Whether a rate misses its range by more than four standard errors of so many runs."""
    least, most = ((edge, math.sqrt(edge * (1 - edge) / max(row.runs, 1))) for edge in (row.least, row.most))
    exact = 0.0 if row.runs == 0 else 4.0
    return row.rate < least[0] - exact * least[1] or row.rate > most[0] + exact * most[1]


@pytest.mark.slow
def test_every_interval_covers_as_often_as_it_may(rows: list[Row]) -> None:
    asked = [row for row in rows if not row.note]
    assert len(asked) >= 30 and {row.least for row in asked} == {COVERAGE[0]}
    assert [f"{row.statistic}, {row.setting}, {row.n}: {row.rate}" for row in asked if beyond_chance(row)] == []


@pytest.mark.slow
def test_the_percentiles_that_were_used_before_are_caught(rows: list[Row]) -> None:
    """The same check fails where it must: with a percentile bootstrap of a few values."""
    before = [row for row in rows if row.note == BEFORE and row.n == 8]
    means = [row for row in before if row.statistic.startswith("mean")]
    assert len(means) == len(MEANS) and sum(beyond_chance(row) for row in means) >= 3
    normal = {row.statistic: row.rate for row in rows if row.n == 8 and row.setting.startswith("normal (log-odds)")}
    assert normal["mean, percentiles"] < 0.92 < normal["mean"]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_rates() -> None:
    options = Options(40, sizes=(8,), seed=3)
    assert list(map(rate, coverage(options))) == list(map(rate, coverage(options)))
    assert list(map(rate, coverage(options))) != list(map(rate, coverage(Options(40, sizes=(8,), seed=4))))


def rate(row: Row) -> tuple[str, str, int, float]:
    return row.statistic, row.setting, row.n, row.rate


@pytest.mark.parametrize("kind", MEANS, ids=lambda kind: kind.name)
def test_the_true_means_are_true(kind: object) -> None:
    drawn = kind.draw(np.random.default_rng(5), 200_000)  # type: ignore[attr-defined]
    assert drawn.mean() == pytest.approx(kind.mean, abs=5 * drawn.std() / math.sqrt(200_000))  # type: ignore[attr-defined]
