"""What docs/formats.md says of files is what the code writes."""

import re
from dataclasses import fields
from importlib import import_module

import pytest

from interp import manifest
from interp.cli.demo import FILES
from interp.cli.demo_steps import SEARCHES
from interp.rollouts import Rollout
from tests.docs.blocks import ROOT

TABLES = {
    "cliffscope.heads": ("circuits.head_scores", "FORMAT"),
    "cliffscope.curve": ("circuits.curve", "FORMAT"),
    "cliffscope.cascade": ("circuits.cascade", "FORMAT"),
    "cliffscope.direction-scores": ("interventions.directions.choosing", "TABLE"),
    "cliffscope.doses": ("interventions.dose.response", "FORMAT"),
    "cliffscope.apart": ("interventions.directions.apart_report", "FORMAT"),
    "cliffscope.latents": ("interventions.latents.scores", "FORMAT"),
    "cliffscope.bench": ("cliffbench.run", "FORMAT"),
    "cliffscope.calibration": ("cliffbench.calibration.results", "FORMAT"),
}
METHODS = (*SEARCHES, "cliff", "random")
"""By which the demo searches heads and chooses examples."""
FITTED = {
    "cliffscope.probe": "probes.linear",
    "cliffscope.direction": "interventions.directions.direction",
    "cliffscope.transport": "interventions.steering.transport",
    "cliffscope.guard": "probes.guard.latent_guard",
    "cliffscope.head_mask": "interventions.masks.mask_file",
}


def rows() -> list[list[str]]:
    """The cells of every table row of the page, without backticks."""
    text = (ROOT / "docs/formats.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    return [[cell.strip().replace("`", "") for cell in line.strip("|").split("|")] for line in lines]


def test_tables_have_these_columns() -> None:
    said = {row[1]: tuple(row[3].split(", ")) for row in rows() if len(row) == 4 and row[1] in TABLES}
    assert said.keys() == TABLES.keys()
    for name, (module, attribute) in TABLES.items():
        form = getattr(import_module(module), attribute)
        assert (form.name, form.version, form.columns) == (name, "1", said[name])


def test_every_table_format_of_the_code_is_described() -> None:
    packages = ("interp", "probes", "interventions", "circuits", "selection", "cliffbench", "report")
    sources = [path for package in packages for path in (ROOT / package).rglob("*.py")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    made = set(re.findall(r'TableFormat\(\s*(?:name=)?"([^"]+)"', text))
    assert made == TABLES.keys()


def test_fitted_files_have_these_formats() -> None:
    said = {row[1] for row in rows() if len(row) == 4 and row[1] in FITTED}
    assert said == FITTED.keys()
    for name, module in FITTED.items():
        home = import_module(module)
        assert (name, "1") == (home.FORMAT, home.VERSION)


def test_rollouts_have_these_keys() -> None:
    names = [field.name for field in fields(Rollout)]
    keys = [row[0] for row in rows() if len(row) == 3 and row[0] in names]
    assert keys == names


def test_all_that_a_run_holds_is_said() -> None:
    page = " ".join((ROOT / "docs/formats.md").read_text(encoding="utf-8").partition("## A run")[2].split())
    missing = [name for name in FILES if f"`{re.sub('-(?:' + '|'.join(METHODS) + ')', '-METHOD', name)}`" not in page]
    assert missing == []
    assert f"`{manifest.NAME}`" in page and f"format `{manifest.FORMAT}`, version `{manifest.VERSION}`" in page


@pytest.mark.parametrize(
    ("form", "module"),
    [
        ("cliffscope-rollouts", "interp.rollouts.job"),
        ("cliffscope-selection", "selection.select"),
        ("cliffscope-scores", "selection.score_files"),
        ("cliffscope.evaluation", "selection.evaluation.evaluation"),
        ("cliffscope-repair", "selection.repair.report"),
    ],
)
def test_json_files_have_these_formats(form: str, module: str) -> None:
    home = import_module(module)
    assert (home.FORMAT, home.VERSION) == (form, 1)
    assert f"`{form}`, version 1" in " ".join((ROOT / "docs/formats.md").read_text(encoding="utf-8").split())
