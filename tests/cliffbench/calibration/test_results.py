"""Rows, the table and its file, and what the page says of them."""

import numpy as np
import pytest

from cliffbench.calibration.page import tables
from cliffbench.calibration.results import COLUMNS, FORMAT, claim_row, coverage_row, p_row, table_of
from cliffbench.calibration.run import Calibration, CalibrationOptions
from interp.statistics import proportion_interval


def test_a_rate_counts_what_lies_below_and_not_what_was_not_printed() -> None:
    row = p_row("a", "b", np.array([0.01, 0.049, 0.05, 0.9, np.nan]))
    assert (row.rate, row.runs, row.within) == (0.4, 5, False)
    assert list(row.interval) == pytest.approx(list(proportion_interval(2, 5)))
    nothing = p_row("a", "b", np.full((4, 3), np.nan))
    assert nothing.rate == 0 and nothing.within and nothing.interval.high > 0.3


def test_tests_of_one_run_hang_together() -> None:
    """Ten runs of 100 tests each that all reject or all do not are ten pieces of evidence."""
    p = np.repeat([[0.01]] * 2 + [[0.5]] * 8, 100, axis=1)
    assert p_row("a", "b", p).interval.width > 0.3
    mixed = np.where(np.arange(1000).reshape(10, 100) % 20 == 0, 0.01, 0.5)
    assert p_row("a", "b", mixed).interval.width < 0.02


def test_clearly_outside_is_more_than_outside() -> None:
    assert not claim_row("a", "b", [True] * 3 + [False] * 37).clearly_outside
    surely = claim_row("a", "b", [True] * 30 + [False] * 10)
    assert surely.clearly_outside and not surely.within
    assert not claim_row("a", "b", [True] * 30 + [False] * 10, note="why").clearly_outside
    few, many = (coverage_row("a", "b", [True] * 9 * k + [False] * k, n=8) for k in (5, 500))
    assert not few.within and not few.clearly_outside and many.clearly_outside


def test_the_page_and_the_file_tell_what_missed_and_what_has_no_range(tmp_path) -> None:
    rows = (
        p_row("good p", "here", np.full(100, 0.5)),
        p_row("bad p", "here", np.full(100, 0.01), n=7),
        claim_row("claims", "there", [True] * 100, note="because"),
        coverage_row("interval", "x", [True] * 95 + [False] * 5, n=8),
    )
    found = Calibration(rows, 90.0, 0)
    assert [row.statistic for row in found.outside] == ["bad p"]
    assert found.evidence == "2 of 3 figures lie in their range. Outside: bad p, here, n = 7: 1.000."
    assert Calibration(rows[:1], 1.0, 0).evidence == "All 1 figures lie in their range."
    text = tables(found, "cliffscope bench calibrate")
    assert "`cliffscope bench calibrate` in 1.5 minutes" in text
    assert "| bad p | here | 7 | 100 | 1.000 | [0.963, 1.000] | **no** |" in text
    assert "| claims | there | 0 | 100 | 1.000 | [0.963, 1.000] | because |" in text
    table = table_of(rows)
    FORMAT.write(tmp_path / "c.parquet", table, {"seed": 0})
    again, metadata = FORMAT.read(tmp_path / "c.parquet")
    assert tuple(again) == COLUMNS and metadata["seed"] == 0 and again["within"].tolist() == [True, False, False, True]


def test_the_steps_are_told() -> None:
    options = CalibrationOptions.quick()
    assert options.n_steps == 4 + 2 * options.nulls.whole
