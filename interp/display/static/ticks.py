"""One axis of a panel: ticks and their labels, grid lines, and the title."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from interp.display.palette import INK
from interp.display.static.reading import POINT, Json, color, formatted, plain, values
from interp.display.static.texts import font


@dataclass
class Panel:
    """One pair of axes.

    Attributes:
        ax: Where matplotlib draws.
        x, y: What the figure says of the two axes.
        names: Their names: `x2`, `y2`.
        domain: Their parts of the area of all panels, `(x0, x1), (y0, y1)`.
        layout: Of the figure.
        categories: Of the axes that have such, by the name of the axis.
        bar: The colour bar, where there is one, with its distance and width in pixels.
    """

    ax: Any
    x: Json
    y: Json
    names: tuple[str, str]
    layout: Json
    categories: dict[str, list[Any]]
    bar: tuple[Any, float, float] | None = None

    def axis(self, which: str) -> Json:
        """What the figure says of `x` or `y`."""
        return self.x if which == "x" else self.y

    @property
    def domain(self) -> tuple[Sequence[float], Sequence[float]]:
        """See the class."""
        return self.x.get("domain") or (0, 1), self.y.get("domain") or (0, 1)

    def numbers(self, data: Any, which: str) -> np.ndarray:
        """Places along an axis: categories become 0, 1, 2, …, and what there is not NaN."""
        known = self.categories.get(self.names[which == "y"])
        found = values(data)
        if known is None:
            return np.array([np.nan if value is None else float(value) for value in found])
        return np.array([np.nan if value is None else float(known.index(value)) for value in found])


def dress(panel: Panel, which: str) -> None:
    """The look of one axis of a panel."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, MultipleLocator, NullLocator

    said, layout = (panel.x if which == "x" else panel.y), panel.layout
    axis = panel.ax.xaxis if which == "x" else panel.ax.yaxis
    known = panel.categories.get(panel.names[which == "y"])
    if said.get("type") == "log":
        (panel.ax.set_xscale if which == "x" else panel.ax.set_yscale)("log")
        axis.set_minor_locator(NullLocator())
    labels: list[str] | None = None
    if said.get("tickvals") is not None:
        places = panel.numbers(said["tickvals"], which)
        axis.set_major_locator(FixedLocator(list(places)))
        if said.get("ticktext") is not None:
            labels = [plain(text) for text in said["ticktext"]]
    elif known is not None:
        axis.set_major_locator(FixedLocator(range(len(known))))
        labels = [plain(name) for name in known]
    elif said.get("type") == "log":
        axis.set_major_locator(LogLocator(numticks=8))
    elif isinstance(said.get("dtick"), int | float):
        axis.set_major_locator(MultipleLocator(said["dtick"], offset=float(said.get("tick0") or 0)))
    else:
        axis.set_major_locator(MaxNLocator(nbins=min(6, said.get("nticks") or 6), steps=[1, 2, 2.5, 5, 10]))
    if labels is not None:
        axis.set_major_formatter(FuncFormatter(_named([float(place) for place in axis.get_major_locator()()], labels)))
    else:
        axis.set_major_formatter(FuncFormatter(lambda value, _: formatted(value, said.get("tickformat"))))
    _lines(panel, axis, said, which)
    _labels(axis, said, layout, which)
    title = said.get("title") or {}
    if title.get("text"):
        axis.set_label_text(plain(title["text"]), **font(title.get("font"), layout))
        axis.labelpad = float(title.get("standoff", 6)) * POINT


def _named(places: list[float], labels: list[str]) -> Any:
    """A formatter that knows the label of each place."""

    def name(value: Any, _: int | None) -> str:
        near = [text for place, text in zip(places, labels, strict=False) if abs(place - value) < 1e-6]
        return near[0] if near else ""

    return name


def _lines(panel: Panel, axis: Any, said: Json, which: str) -> None:
    """Grid lines, the line of the axis, that of 0, and the ticks."""
    ax = panel.ax
    ax.set_axisbelow(True)
    if said.get("showgrid", True):
        axis.grid(True, color=color(said.get("gridcolor", "#888888")), linewidth=0.8)
    else:
        axis.grid(False)
    sides = ("bottom", "top") if which == "x" else ("left", "right")
    for number, side in enumerate(sides):
        ax.spines[side].set_visible(number == 0 and bool(said.get("showline")))
        ax.spines[side].set_color(color(said.get("linecolor", INK)))
        ax.spines[side].set_linewidth(0.8)
    if said.get("zeroline"):
        (ax.axvline if which == "x" else ax.axhline)(0, color=color(said.get("zerolinecolor", INK)), lw=0.8, zorder=0.6)
    length = float(said.get("ticklen", 5)) * POINT if said.get("ticks") == "outside" else 0.0
    axis.set_tick_params(which="major", length=length, width=0.8, color=color(said.get("tickcolor", INK)), pad=3)
    if said.get("visible") is False:
        axis.set_visible(False)
        for side in sides:
            ax.spines[side].set_visible(False)


def _labels(axis: Any, said: Json, layout: Json, which: str) -> None:
    look = font(said.get("tickfont"), layout, 12)
    shown = said.get("showticklabels", True)
    keywords = {"labelsize": look["fontsize"], "labelcolor": look["color"], "labelfontfamily": look["fontfamily"]}
    side = {"labelbottom" if which == "x" else "labelleft": shown}
    axis.set_tick_params(which="major", **keywords, **side)


def crowded(axis: Any, renderer: Any) -> bool:
    """Whether labels of a horizontal axis run into one another."""
    boxes = [label.get_window_extent(renderer) for label in axis.get_ticklabels() if label.get_text()]
    boxes.sort(key=lambda box: box.x0)
    return any(first.x1 > second.x0 - 2 for first, second in pairwise(boxes))


def turn(axis: Any, degrees: float) -> None:
    """Turns the labels of a horizontal axis, so that each ends at its tick."""
    axis.set_tick_params(labelrotation=degrees)
    for label in axis.get_ticklabels():
        label.set_rotation(degrees)
        label.set_rotation_mode("anchor")
        label.set_horizontalalignment("right" if degrees > 0 else "left" if degrees < 0 else "center")
        label.set_verticalalignment("center_baseline" if degrees else "top")
