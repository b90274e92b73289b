"""The tables of a calibration in Markdown."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime

from cliffbench.calibration.results import Row
from cliffbench.calibration.run import Calibration

# Between these lines a page of the documentation holds them.
BEGIN = "<!-- calibration tables: written by `cliffscope bench calibrate --docs` -->"
END = "<!-- end of the calibration tables -->"

_PARTS = (
    ("p", "### Under a null: share of p < 0.05 (at most 0.07)"),
    ("claims", "### Under a null: share of runs with a claim (at most 0.05)"),
    ("coverage", "### 95 % intervals: share that covers the truth (0.92 to 0.98)"),
)


def tables(found: Calibration, command: str) -> str:
    """All tables, with the date and the command that made them; figures without a range come after those with one."""
    parts = [
        f"Made on {datetime.now(UTC):%Y-%m-%d} by `{command}` in {found.seconds / 60:.1f} minutes of processor time, "
        f"seed {found.seed}. In brackets 95 % intervals over runs.",
        found.evidence,
    ]
    for kind, title in _PARTS:
        rows = [row for row in found.rows if row.kind == kind]
        parts += [title, _table([row for row in rows if not row.note])]
        if beside := [row for row in rows if row.note]:
            parts += ["Beside these, without a range to keep:", _table(beside, notes=True)]
    return "\n\n".join(parts) + "\n"


def _table(rows: Sequence[Row], notes: bool = False) -> str:
    head = ["statistic", "setting", "n", "runs", "rate", "", *(["why no range"] if notes else ["in range"])]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        last = row.note if notes else ("yes" if row.within else "**no**")
        runs = str(row.runs) if row.runs else "exact"
        lines.append([row.statistic, row.setting, str(row.n), runs, _number(row.rate), _interval(row), last])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _interval(row: Row) -> str:
    return f"[{_number(row.interval.low)}, {_number(row.interval.high)}]" if row.runs else ""


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"
