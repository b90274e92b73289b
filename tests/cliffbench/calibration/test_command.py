"""`cliffscope bench calibrate`: its files and its page; what is wrong is told before any work."""

import json

import pytest
import typer
from typer.testing import CliRunner

from cliffbench.calibration import run
from cliffbench.calibration.page import BEGIN, END
from cliffbench.calibration.results import FORMAT, claim_row, coverage_row, p_row
from cliffbench.calibration.run import Calibration, CalibrationOptions
from interp.cli.bench import app as bench
from interp.cli.bench_calibrate import calibrate
from interp.errors import CliffscopeError

app = typer.Typer()
app.command()(calibrate)

ROWS = (
    p_row("a p", "here", [0.5] * 100),
    claim_row("a claim", "there", [False] * 100),
    coverage_row("an interval", "normal", [True] * 99 + [False], n=8),
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[CalibrationOptions]:
    """What was asked for; nothing is run."""
    options: list[CalibrationOptions] = []

    def instead(given: CalibrationOptions, advance: object) -> Calibration:
        options.append(given)
        return Calibration(ROWS, 60.0, given.seed)

    monkeypatch.setattr(run, "calibrate", instead)
    return options


def test_it_writes_a_table_a_summary_and_the_page(asked, tmp_path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    result = CliRunner().invoke(
        app,
        ["--quick", "--seed", "3", "--out", str(tmp_path), "--docs", str(page), "--json"],
        catch_exceptions=False,
    )
    printed = json.loads(result.stdout)
    assert printed["asked"] == 3 and printed["outside"][0]["statistic"] == "an interval" and printed["seed"] == 3
    assert asked == [CalibrationOptions.quick(3)]
    assert len(FORMAT.read(tmp_path / "calibration.parquet")[0]) == 3
    assert json.loads((tmp_path / "summary.json").read_text())["evidence"].startswith("2 of 3 figures lie")
    text = page.read_text()
    assert text.startswith(f"before\n{BEGIN}\n") and text.endswith(f"{END}\nafter\n") and "old" not in text
    assert "`cliffscope bench calibrate --quick --seed 3`" in text and "| an interval | normal | 8 | 100 |" in text


def test_it_is_a_command_of_bench() -> None:
    assert calibrate in [command.callback for command in bench.registered_commands]


def test_without_quick_it_runs_what_the_page_shows(asked, tmp_path) -> None:
    result = CliRunner().invoke(app, ["--out", str(tmp_path)], catch_exceptions=False)
    assert asked == [CalibrationOptions.full(0)] and "2 of 3 figures lie in their range" in result.stdout
    assert asked[0].nulls.runs >= 200 <= asked[0].nulls.whole and asked[0].coverage.simulations >= 1000


def test_a_page_without_a_place_is_refused_before_any_work(asked, tmp_path) -> None:
    page = tmp_path / "page.md"
    for content, message in ((None, "no such file"), ("text", "has no place for the tables")):
        if content is not None:
            page.write_text(content)
        with pytest.raises(CliffscopeError, match=message):
            CliRunner().invoke(
                app,
                ["--out", str(tmp_path), "--docs", str(page)],
                catch_exceptions=False,
            )
    assert asked == []
