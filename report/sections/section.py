"""What sections are made of, and how numbers read in them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from interp.statistics import Interval
from report.figures import Panel
from report.problems import Problem


@dataclass(frozen=True)
class Grid:
    """A table: the first column names its row.

    Attributes:
        caption: What it is.
        head: Titles of the columns.
        rows: Their cells.
        numeric: Columns of numbers, which stand at the right.
        folded: Whether it is closed until a reader opens it: the numbers behind a figure.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: frozenset[int] = frozenset()
    folded: bool = False


@dataclass(frozen=True)
class Figure:
    """Panels that belong together, in one view or in several of which one is shown.

    Attributes:
        name: Unique on the page.
        caption: What to look at.
        views: Label and panels of each.
        choice: What the views differ in.
        legend: Outcome and label of what is drawn in its colour.
    """

    name: str
    caption: str
    views: Sequence[tuple[str, Sequence[Panel]]]
    choice: str = ""
    legend: Sequence[tuple[str, str]] = ()


@dataclass
class Section:
    """A section of the page.

    Attributes:
        name: Its anchor.
        title: Its heading.
        paragraphs: Plain text.
        tiles: A few figures, large: value, what it is, and what it is to be compared with.
        figures, grids: Pictures and tables.
        problems: What is missing or broken.
        rollout: One that a reader should open: words, and its id.
    """

    name: str
    title: str
    paragraphs: list[str] = field(default_factory=list)
    tiles: list[tuple[str, str, str]] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    grids: list[Grid] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    rollout: tuple[str, str] | None = None


def number(value: Any, digits: int = 3) -> str:
    """A number, or a dash for what there is not."""
    value = real(value)
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def small(value: Any) -> str:
    """A number to three digits, whatever its size."""
    value = real(value)
    return "–" if value is None else f"{value:.3g}".replace("-", "−")


def percent(value: Any) -> str:
    """A share."""
    value = real(value)
    return "–" if value is None else f"{100 * value:.1f}\u00a0%"


def between(low: Any, high: Any, show: Any = number) -> str:
    """` [low, high]`, or nothing."""
    return "" if real(low) is None or real(high) is None else f" [{show(low)}, {show(high)}]"


def share(value: Any, interval: Interval | None) -> str:
    """A share with its interval."""
    if interval is None or interval.reason is not None:
        return percent(value)
    return f"{percent(value)} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def real(value: Any) -> float | None:
    """A finite number, or `None` for anything else."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        value = float(value)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def counted(n: int, noun: str) -> str:
    """`1 head`, `2 heads`."""
    return f"{n:,} {noun}{'s' * (n != 1)}"
