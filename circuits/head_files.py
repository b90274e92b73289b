"""The files of head scores and of a curve: the table, and the picture beside it."""

import os
from pathlib import Path

from circuits.curve import AblationCurve
from circuits.curve_figure import curve_page
from circuits.head_grid import grid_page
from circuits.head_scores import HeadScores
from interp.files import write_text


def write_heads(scores: HeadScores, out: str | os.PathLike[str]) -> list[Path]:
    """Writes the picture beside `out` (`.html`), then `out`; returns both. Raises `CliffscopeError` if it cannot."""
    picture = Path(out).with_suffix(".html")
    write_text(picture, grid_page(scores))
    scores.save(out)
    return [picture, Path(out)]


def write_curve(curve: AblationCurve, out: str | os.PathLike[str]) -> list[Path]:
    """Writes the picture beside `out` (`.html`), then `out`; returns both. Raises `CliffscopeError` if it cannot."""
    picture = Path(out).with_suffix(".html")
    write_text(picture, curve_page(curve))
    curve.save(out)
    return [picture, Path(out)]
