"""`cliffscope report`: a run's folder as one HTML file."""

from pathlib import Path
from typing import Annotated

import typer

from interp.cli.options import Json


def report(
    run: Annotated[Path, typer.Option("--run", help="The run's folder.")] = Path("runs/demo"),
    out: Annotated[
        Path | None, typer.Option("--out", help="The page to write; report.html in the folder if not given.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Writes one self-contained HTML file that shows a run: it opens from disk, needs no network and installs nothing.

    Shows the verdict with its controls, trajectories, sweep, heads, what each change does, and every rollout token by
    token. Reads the folder only, whatever the commands that filled it called its files. A part that is missing or
    broken is named on the page, with the command that makes it.

    Example: cliffscope report --run runs/demo --out report.html
    """
    from interp.cli.output import emit
    from report.page import write_report

    told = write_report(run, run / "report.html" if out is None else out)
    rows = [
        ("rollouts", told["rollouts"]),
        ("megabytes", round(told["bytes"] / 1e6, 1)),
        ("missing", ", ".join(sorted({entry["part"] for entry in told["missing"]})) or "nothing"),
        ("broken", ", ".join(entry["file"] for entry in told["broken"]) or "nothing"),
    ]
    note = "\n".join(f"{entry['file']}: {entry['why']}" for entry in told["broken"])
    emit(told, as_json=as_json, title=f"Report: {told['out']}", rows=rows, note=note)
