"""The page: sections, data and scripts in one HTML file that loads nothing from anywhere."""

import base64
import hashlib
import os
from collections.abc import Callable, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

from interp.display.palette import COLORS, SCORES, at, legible
from interp.errors import CliffscopeError
from interp.files import write_text
from report import explorer
from report.problems import Problem
from report.provenance import provenance
from report.run import Run, read_run
from report.sections import changes, heads, sweep, trajectories, verdict
from report.sections.section import Section
from report.text import data_block, shown
from report.tokens import deflated, pack

BUILDERS: tuple[tuple[str, str, Callable[[Run], Section]], ...] = (
    ("verdict", "The verdict", verdict.build),
    ("trajectories", "Where refusal falls off", trajectories.build),
    ("sweep", "Layer × position", sweep.build),
    ("heads", "Which heads push", heads.build),
    ("changes", "Before and after", changes.build),
)
"""Anchor, title and maker of each section before the explorer."""

SCRIPTS = ("data.js", "page.js", "figures.js", "tokens.js", "explorer.js")
"""One after the other they are the page's script."""

SHADES = 50
"""Steps of the colours of scores."""


def write_report(folder: str | os.PathLike[str], out: str | os.PathLike[str]) -> dict[str, Any]:
    """Writes the report of a run's folder, whole or not at all; equal folders give equal bytes.

    Returns:
        `out`, `bytes`, `rollouts`, and `missing` and `broken`: the parts with the reason and what makes them.

    Raises:
        CliffscopeError: If there is no such folder, nothing in it comes from Cliffscope, or `out` cannot be written or
            is one of the run's own files.
    """
    out = Path(out)
    if out.is_dir():
        raise CliffscopeError(f"{out}: is a folder; give a file name.")
    run = read_run(folder)
    if any(out.exists() and out.samefile(file.path) for file in run.files):
        raise CliffscopeError(f"{out}: is a file of the run and would be replaced; give another name.")
    text, found = render(run)
    write_text(out, text)
    told: dict[str, Any] = {"out": str(out), "bytes": len(text.encode()), **found}
    return told


def render(run: Run) -> tuple[str, dict[str, Any]]:
    """The page's text, and what `write_report` returns of it."""
    packed = pack(run.scores, run.answers)
    sections = [_built(run, *builder) for builder in BUILDERS]
    told, rollouts = provenance(run), explorer.facts(run, packed)
    problems = [*(p for s in sections for p in s.problems), *explorer.problems(run), *told.problems]
    panels = {p.name: p.spec for s in sections for f in s.figures for _, panels in f.views for p in panels}
    script, (plotly, digest) = "\n".join(_asset(name) for name in SCRIPTS), _plotly()
    colors = [[at(SCORES, step / SHADES), legible(at(SCORES, step / SHADES))] for step in range(SHADES + 1)]
    text = _template().render(
        title=shown(_title(run)),
        sections=sections,
        explorer_problems=explorer.problems(run),
        provenance=told,
        notes=run.notes,
        style=_asset("report.css"),
        script=script,
        plotly=plotly,
        policy=_policy(_digest(script), digest),
        colors=COLORS,
        scale=SCORES,
        data={"explorer": data_block({**rollouts, "colors": colors}), "figures": data_block(panels)},
        chunks=packed.chunks,
        shown=shown,
        link=lambda id: "#rollout=" + quote(id, safe=""),
    )
    unique = list(dict.fromkeys(problems))
    return text, {
        "rollouts": len(rollouts["rollouts"]),
        "missing": [_told(problem) for problem in unique if problem.state == "missing"],
        "broken": [_told(problem) for problem in unique if problem.state == "broken"],
    }


def _built(run: Run, name: str, title: str, build: Callable[[Run], Section]) -> Section:
    """A section; one that cannot be made of what its files hold says so, and the others stand."""
    try:
        return build(run)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, ArithmeticError, MemoryError) as error:
        why = (
            f"What its files hold does not fit together ({type(error).__name__}: {' '.join(str(error).split())[:200]})."
        )
        files = ", ".join(file.path.name for file in run.files if file.kind in _PARTS[name]) or "its files"
        return Section(name, title, problems=[Problem(_PARTS[name][0], why, files)])


_PARTS: Mapping[str, tuple[str, ...]] = {
    "verdict": ("cliff_figures", "summary", "probe"),
    "trajectories": ("scores", "cliff", "layers"),
    "sweep": ("sweep", "probe"),
    "heads": ("heads", "curve", "mask"),
    "changes": ("rollouts", "summary", "evaluation", "doses", "selection"),
}


def _told(problem: Problem) -> dict[str, Any]:
    return {"part": problem.part, "file": problem.file, "why": problem.why, "command": problem.command}


def _title(run: Run) -> str:
    model = run.object("summary").get("model") or run.object("probe").get("model")
    model = model or next((r.model for rollouts in run.answers.values() for r in rollouts.values() if r.model), None)
    return f"{model or 'A run'}: refusal cliff"


def _template() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("report", "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report.html.jinja")


def _asset(name: str) -> str:
    return (resources.files("report") / "assets" / name).read_text(encoding="utf-8")


@cache
def _plotly() -> tuple[str, str]:
    """plotly.js as its Python package brings it, found without importing that: deflated, and its digest.

    The page holds it deflated, a third of its 4.8 MB, and runs it when the first figure comes near: a browser takes
    longer to parse it than to show all else.
    """
    import importlib.util

    found = importlib.util.find_spec("plotly")
    if found is None or found.origin is None:
        raise CliffscopeError("plotly is not installed; `pip install plotly`.")
    text = (Path(found.origin).parent / "package_data" / "plotly.min.js").read_text(encoding="utf-8")
    return deflated(text.encode()), _digest(text)


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _policy(*digests: str) -> str:
    """A content security policy that runs the scripts with these digests and no other, and loads nothing."""
    return "; ".join(
        [
            "default-src 'none'",
            "script-src " + " ".join(f"'sha256-{digest}'" for digest in digests),
            "style-src 'unsafe-inline'",  # Plotly writes style elements
            "img-src data: blob:",  # and pictures
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
