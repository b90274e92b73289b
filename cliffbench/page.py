"""The tables of a bench run in Markdown, and the page of the documentation that holds them."""

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from cliffbench.summary import mean_over
from interp.errors import CliffscopeError
from interp.files import write_text

BEGIN, END = "<!-- bench tables: written by `cliffscope bench --docs` -->", "<!-- end of the bench tables -->"

HEAD_COLUMNS = {
    "precision": "precision",
    "recall": "recall",
    "auroc": "AUROC",
    "precision_at_n": "precision at n",
    "false_discoveries": "false heads",
    "false_claim": "false claims, controls",
    "sparse_right": "sparse or not: right",
    "asr_undone": "ASR undone",
    "edge_recall": "edges found",
    "cpr": "CPR",
    "cmd": "CMD",
    "cpu_seconds": "CPU s",
}
"""Scores of a method in the main table, and what they are called there."""
MIN_SEEDS = 3
"""Of fewer seeds an interval says nothing: between two values Student's t is six times as wide as the normal's."""


def method_rows(table: pd.DataFrame) -> list[list[str]]:
    """A row a method: the mean of each score over organisms and seeds."""
    names = table[table["group"].isin(["heads", "time"]) & (table["method"] != "prepare")]["method"].drop_duplicates()
    return [[name, *(_figure(mean_over(table, name, score)) for score in HEAD_COLUMNS)] for name in names]


def tables(table: pd.DataFrame, summary: dict[str, Any], command: str) -> str:
    """All tables, with the date and the command that made them."""
    seeds = summary["seeds"]
    planted = "planted anew with each seed" if summary["fresh"] else "as shipped; a seed draws other prompts"
    brackets = "In brackets 95 % intervals (Student's t over seeds)."
    intervals = brackets if len(seeds) >= MIN_SEEDS else "Intervals need three seeds."
    took = (
        f"{summary['seconds'] / 60:.1f} minutes{' (the rest of a run that was killed)' if summary['resumed'] else ''}"
    )
    parts = [
        f"Made on {datetime.now(UTC):%Y-%m-%d} by `{command}` in {took}: "
        f"{len(seeds)} seeds, organisms {planted}. {intervals}",
        "### Methods",
        "Means over the planted organisms (false claims: over the controls).",
        _grid(["method", *HEAD_COLUMNS.values()], method_rows(table)),
        "### Precision and recall of the named heads, by organism",
        _named(table, summary),
        "### Verdict",
        _verdicts(table, summary),
        "### Direction",
        "Mean |cosine| with the planted direction.",
        _by_organism(table, "cosine", 2),
        "### Least number of best heads whose ablation brings refusal back",
        _by_organism(table, "heads_needed", 1),
        "### Behaviour with the named heads masked",
        _masks(table, summary),
    ]
    if summary["errors"]:
        lines = [
            f"- {one['organism']}, seed {one['seed']}, {one['method']}: {one['error']}" for one in summary["errors"]
        ]
        parts += ["### What could not be done", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def require_page(path: Path, begin: str = BEGIN, end: str = END) -> None:
    """Raises `CliffscopeError`, before any work, if a page has no place for the tables."""
    if not path.is_file():
        raise CliffscopeError(f"{path}: no such file; give a page with the lines {begin} and {end}.")
    text = path.read_text(encoding="utf-8")
    if not 0 <= text.find(begin) < text.find(end):
        raise CliffscopeError(f"{path}: has no place for the tables; put the lines {begin} and {end} into it.")


def write_page(path: Path, text: str, begin: str = BEGIN, end: str = END) -> None:
    """Puts the tables between the two lines of a page. Raises `CliffscopeError` if it lacks them."""
    require_page(path, begin, end)
    before, rest = path.read_text(encoding="utf-8").split(begin, 1)
    write_text(path, f"{before}{begin}\n\n{text}\n{end}{rest.split(end, 1)[1]}")


def _named(table: pd.DataFrame, summary: dict[str, Any]) -> str:
    organisms = [name for name, facts in summary["organisms"].items() if facts["planted"]]
    methods = table[table["group"] == "heads"]["method"].drop_duplicates().tolist()
    rows = []
    for method in methods:
        cells = []
        for organism in organisms:
            some = [mean_over(table, method, score, [organism])["mean"] for score in ("precision", "recall")]
            cells.append(" / ".join(_number(value, 2) for value in some))
        rows.append([method, *cells])
    return _grid(["method", *organisms], rows)


def _verdicts(table: pd.DataFrame, summary: dict[str, Any]) -> str:
    readings = table[table["group"] == "verdict"]["method"].drop_duplicates().tolist()
    rows = []
    for organism, facts in summary["organisms"].items():
        says = [mean_over(table, reading, "says_cliff", [organism])["mean"] for reading in readings]
        rows.append([organism, _TRUTHS[facts["has_cliff"]], *(_share(value) for value in says)])
    return "How often each reading says cliff.\n\n" + _grid(["organism", "truth", *readings], rows)


_TRUTHS = {True: "cliff", False: "no cliff", None: "not known"}


def _masks(table: pd.DataFrame, summary: dict[str, Any]) -> str:
    rows = []
    group = table[table["group"] == "mask"]
    for organism in [name for name, facts in summary["organisms"].items() if facts["has_cliff"] is not False]:
        for method in group[group["organism"] == organism]["method"].drop_duplicates():
            figures = [
                mean_over(group, method, score, [organism])["mean"]
                for score in ("asr", "asr_masked", "asr_planted_mask", "benign_refused_masked", "kl_benign_masked")
            ]
            rows.append([organism, method, *(_number(value, 2) for value in figures)])
    head = ["organism", "method", "ASR", "masked", "planted mask", "benign refused", "KL benign"]
    return _grid(head, rows)


def _by_organism(table: pd.DataFrame, score: str, digits: int) -> str:
    mine = table[table["score"] == score]
    organisms = sorted(mine["organism"].unique())
    rows = [
        [method, *(_number(mean_over(mine, method, score, [name])["mean"], digits) for name in organisms)]
        for method in mine["method"].drop_duplicates()
    ]
    return _grid(["method", *organisms], rows)


def _figure(found: dict[str, Any]) -> str:
    if math.isnan(found["mean"]):
        return "–"
    text = _number(found["mean"], 2)
    known = found["n_seeds"] >= MIN_SEEDS and not math.isnan(found["low"])
    return f"{text} [{_number(found['low'], 2)}, {_number(found['high'], 2)}]" if known else text


def _number(value: float, digits: int) -> str:
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def _share(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.0%}"


def _grid(head: list[str], rows: list[list[str]]) -> str:
    if not rows:
        return "Nothing was measured."
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])
