"""axe-core finds no violation that keeps people out, in the report and in the pages of the other commands."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from circuits.curve import AblationCurve
from circuits.curve_figure import curve_page
from circuits.head_grid import grid_page
from circuits.head_scores import HeadScores
from probes.cliff_figure import cliff_page
from probes.sweep_figure import write_sweep_html
from selection.evaluation.comparison import compare
from selection.evaluation.figure import comparison_page
from tests.browser.conftest import OpenTab
from tests.browser.run_folder import FINGERPRINT, curve_table, head_table, sweep_table
from tests.probes.test_cliff import cliff
from tests.selection.evaluation.material import evaluation, outcomes

WIDTHS = {"phone": 360, "desktop": 1400}


def violations(page: Any, *impacts: str) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [
        f"{entry['id']} ({entry['impact']}): {node['target']} {node['html'][:160]} {node.get('failureSummary', '')}"
        for entry in found
        if entry["impact"] in impacts
        for node in entry["nodes"][:3]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_report(open_tab: OpenTab, report: Path, width: str, scheme: str) -> None:
    page = open_tab(report, width=WIDTHS[width], color_scheme=scheme).page
    page.locator("#rollouts tbody tr button").first.click()
    page.locator("#sides .token").first.wait_for()
    page.click("#to-edge")
    assert violations(page, "critical", "serious") == []


def test_a_violation_is_found(open_tab: OpenTab, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text("<!doctype html><html><title>bad</title><img src='data:,'><button></button><select></select></html>")
    found = violations(open_tab(bad, faulty=True).page, "critical", "serious")
    assert {entry.split(" ")[0] for entry in found} >= {"button-name", "html-has-lang", "image-alt", "select-name"}


FACTS = {"nothing": None, "n": 10, "seed": 0, "to_explain": 9.0}


def _comparison() -> str:
    verdicts = [[number % 3 == 0 for number in range(30)], [number % 5 != 0 for number in range(30)]]
    made = [
        evaluation([*outcomes("harmful", refused), *outcomes("benign", [False] * 20)], label)
        for refused, label in zip(verdicts, ("base", "masked"), strict=True)
    ]
    return comparison_page(compare(made))


def _sweep(path: Path) -> None:
    write_sweep_html(sweep_table(), path)


def _text(make: Callable[[], str]) -> Callable[[Path], object]:
    return lambda path: path.write_text(make(), encoding="utf-8")


PAGES: dict[str, Callable[[Path], object]] = {
    "cliff": _text(
        lambda: cliff_page(cliff({"complied": (8, 3.0, -3.0), "refused": (8, 3.0, 3.0), "benign": (8, -3.0, -3.0)}))
    ),
    "heads": _text(lambda: grid_page(HeadScores(head_table(), "ablation", "toy", FINGERPRINT, FACTS))),
    "curve": _text(lambda: curve_page(AblationCurve(curve_table(), "toy", FACTS))),
    "comparison": _text(_comparison),
    "sweep": _sweep,
}


@pytest.mark.parametrize("name", PAGES)
def test_the_pages_of_other_commands(open_tab: OpenTab, tmp_path: Path, pictures: Path, name: str) -> None:
    path = tmp_path / f"{name}.html"
    PAGES[name](path)
    tab = open_tab(path)
    tab.page.locator("svg.main-svg").first.wait_for()
    tab.page.screenshot(path=pictures / f"{name}.png")
    assert violations(tab.page, "critical") == []
    assert tab.requests == [path.resolve().as_uri()]
