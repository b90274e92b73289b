"""A run that lacks a part, or whose part is broken, still makes a page that works and names the part."""

import json
from collections.abc import Callable
from pathlib import Path
from shutil import copytree

import pytest
from playwright.sync_api import expect

from report.page import write_report
from tests.browser.conftest import OpenTab

pytestmark = pytest.mark.slow

NOUNS = {
    "rollouts.jsonl": "The rollouts",
    "scores.parquet": "The score of every token",
    "cliff.parquet": "The cliff of every rollout",
    "sweep.parquet": "The sweep over layers and positions",
    "heads-ablation.parquet": "The heads' scores",
    "curve.parquet": "The ablation curve",
    "mask.safetensors": "The head mask",
    "probe.safetensors": "The probe",
    "run.json": "The manifest of the run",
}


def _cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _garbage(path: Path) -> None:
    path.write_bytes(b"\x00\xff<script>window.pwned=1</script>" * 9)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _gone(path: Path) -> None:
    path.unlink()


WAYS: dict[str, Callable[[Path], None]] = {"cut": _cut, "garbage": _garbage, "empty": _empty, "gone": _gone}
# Every file, and every way: each file in two of them.
CASES = [(name, way) for n, name in enumerate(NOUNS) for k, way in enumerate(WAYS) if (n + k) % 2]


@pytest.mark.parametrize(("name", "way"), CASES)
def test_a_part_is_named(open_tab: OpenTab, run: Path, tmp_path: Path, name: str, way: str) -> None:
    folder = copytree(run, tmp_path / "run")
    if name == "rollouts.jsonl" and way == "gone":
        for other in folder.glob("rollouts*"):
            other.unlink()
    else:
        WAYS[way](folder / name)
    out = tmp_path / "report.html"
    told = write_report(folder, out)
    assert told["missing" if way == "gone" else "broken"]
    page = open_tab(out).page
    note = page.locator(".problem", has_text=NOUNS[name]).first
    expect(note).to_contain_text("missing" if way == "gone" else "broken")
    expect(note).to_contain_text("cliffscope ")  # what makes it
    if way == "cut" and name == "rollouts.jsonl":
        expect(page.locator("#count")).not_to_have_text("0 of 0 rollouts")  # the good lines are shown
    for section in ("verdict", "trajectories", "sweep", "heads", "changes", "explorer", "provenance"):
        assert page.locator(f"#{section} h2").count() == 1
    page.locator("#rollouts tbody tr button").first.click()
    page.locator("#sides .token, #sides .plain").first.wait_for()


def test_of_a_folder_with_rollouts_alone_one_can_still_read_them(open_tab: OpenTab, run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "rollouts.jsonl").write_bytes((run / "rollouts.jsonl").read_bytes())
    out = tmp_path / "report.html"
    write_report(folder, out)
    page = open_tab(out).page
    rows = [json.loads(line) for line in (folder / "rollouts.jsonl").read_text(encoding="utf-8").splitlines()]
    expect(page.locator("#count")).to_have_text(f"{len(rows)} of {len(rows)} rollouts")
    first = page.locator("#rollouts tbody tr button").first
    id = first.inner_text()
    first.click()
    page.locator("#sides .plain").first.wait_for()
    row = next(row for row in rows if row["id"] == id)
    assert row["thinking"] in page.locator("#sides").inner_text()
    assert page.locator("#to-edge").is_disabled()


def test_numbers_that_are_none_do_not_stop_it(open_tab: OpenTab, run: Path, tmp_path: Path) -> None:
    folder = copytree(run, tmp_path / "run")
    for name in ("summary.json", "cliff.json"):
        facts = json.loads((folder / name).read_text(encoding="utf-8"))
        emptied = json.loads(json.dumps(facts), parse_float=lambda text: None)
        (folder / name).write_text(json.dumps(emptied), encoding="utf-8")
    out = tmp_path / "report.html"
    assert write_report(folder, out)["broken"] == []
    page = open_tab(out).page
    page.locator("#rollouts tbody tr").first.wait_for()
    words = page.locator("#verdict").inner_text()
    assert "NaN" not in words and "None" not in words
