"""Panels: a pair of axes each, placed by their domains, with ranges, ticks, grid lines and titles."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from interp.display.palette import INK
from interp.display.static.reading import POINT, Json, color, formatted, plain, unknown, values
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


class Panels:
    """All panels of a figure.

    Args:
        drawn: The figure of matplotlib's.
        layout: Of Plotly's.
        traces: Which panels there are, and what categories.
        size: Of the figure, in pixels of the page.

    Raises:
        CliffscopeError: If an axis is of a kind that is not known here.
    """

    def __init__(self, drawn: Any, layout: Json, traces: Sequence[Json], size: tuple[int, int]) -> None:
        self.drawn, self.layout, self.size = drawn, layout, size
        # Fills the area of all panels: what is placed "on the paper" is placed in it.
        self.paper = drawn.add_axes((0, 0, 1, 1), frameon=False, zorder=-1)
        self.paper.set_axis_off()
        self._panels: dict[tuple[str, str], Panel] = {}
        self._ranges: dict[str, tuple[float, float]] = {}
        pairs = [(trace.get("xaxis") or "x", trace.get("yaxis") or "y") for trace in traces]
        # A panel of a grid without a trace is there too, empty.
        empty = [(f"x{name[5:]}", axis["anchor"]) for name, axis in layout.items() if _is_grid(name, axis)]
        categories = _categories(layout, traces)
        for x, y in dict.fromkeys([*pairs, *empty] or [("x", "y")]):
            made = self._panels[x, y] = Panel(
                drawn.add_axes((0, 0, 1, 1), facecolor="none"), self._axis(x), self._axis(y), (x, y), layout, categories
            )
            made.ax.set_label(f"{x}{y}")

    def __iter__(self) -> Iterator[Panel]:
        return iter(self._panels.values())

    def of(self, trace: Json) -> Panel:
        """The panel of a trace."""
        return self._panels[trace.get("xaxis") or "x", trace.get("yaxis") or "y"]

    def with_axis(self, name: str) -> Panel:
        """A panel that has an axis. Raises `CliffscopeError` if there is none."""
        for panel in self:
            if name in panel.names:
                return panel
        raise unknown(f"something at the axis {name!r}, which has no trace")

    def place(self, left: float, bottom: float, width: float, height: float) -> None:
        """Puts the panels into an area, given in pixels of the page."""
        across, high = self.size
        self.paper.set_position((left / across, bottom / high, width / across, height / high))
        for panel in self:
            (x0, x1), (y0, y1) = panel.domain
            box = (left + x0 * width, bottom + y0 * height, (x1 - x0) * width, (y1 - y0) * height)
            panel.ax.set_position((box[0] / across, box[1] / high, box[2] / across, box[3] / high))
            if panel.bar is not None:
                bar, gap, thick = panel.bar
                bar.set_position(((box[0] + box[2] + gap) / across, box[1] / high, thick / across, box[3] / high))

    def finish(self) -> None:
        """Ranges, ticks, grids and titles, once all traces are drawn."""
        for panel in self:
            for which in ("x", "y"):
                _dress(panel, which)
        for number in (0, 1):
            self._share_ranges(number)
            for panel in self:
                _set_range(panel, "xy"[number], self._range(panel, number))

    def settle(self, renderer: Any) -> None:
        """Slants the labels of ticks where the figure says so, and where they would run into one another."""
        for panel in self:
            angle = panel.x.get("tickangle")
            if isinstance(angle, int | float):
                turn(panel.ax.xaxis, -float(angle))
            elif _crowded(panel.ax.xaxis, renderer):
                turn(panel.ax.xaxis, 40.0)

    def _axis(self, name: str) -> Json:
        axis: Json = self.layout.get(f"{name[0]}axis{name[1:]}", {})
        if axis.get("overlaying"):
            raise unknown(f"the axis {name!r} over another")
        if axis.get("type", "-") not in ("-", "linear", "log", "category"):
            raise unknown(f"an axis of the type {axis['type']!r}")
        return axis

    def _group(self, name: str) -> str:
        """The name of the axis whose range an axis shares."""
        seen = {name}
        while (other := self._axis(name).get("matches")) and other not in seen:
            seen.add(other)
            name = other
        return name

    def _share_ranges(self, which: int) -> None:
        """Finds what must be seen along each axis, of all panels that share it."""
        for panel in self:
            low, high = _natural(panel, "xy"[which])
            key = self._group(panel.names[which])
            known = self._ranges.get(key, (low, high))
            self._ranges[key] = (min(low, known[0]), max(high, known[1]))

    def _range(self, panel: Panel, which: int) -> tuple[float, float]:
        key = self._group(panel.names[which])
        axis = panel.x if which == 0 else panel.y
        own = axis.get("range") or self._axis(key).get("range")
        low, high = self._ranges[key]
        if own is not None:
            given = [10**v if axis.get("type") == "log" and v is not None else v for v in own]
            return (low if given[0] is None else float(given[0])), (high if given[1] is None else float(given[1]))
        return (high, low) if axis.get("autorange") == "reversed" else (low, high)


def _natural(panel: Panel, which: str) -> tuple[float, float]:
    """The range that shows everything."""
    axis = panel.x if which == "x" else panel.y
    low, high = panel.ax.get_xlim() if which == "x" else panel.ax.get_ylim()
    low, high = min(low, high), max(low, high)
    if (known := panel.categories.get(panel.names[which == "y"])) is not None:
        return -0.5, len(known) - 0.5
    if axis.get("rangemode") == "tozero":
        # Without the margin below, which the axis does not need where it begins at 0.
        low, high = (low if panel.ax.dataLim.bounds[which == "y"] < 0 else 0.0), max(0.0, high)
    return float(low), float(high)


def _is_grid(name: str, axis: Any) -> bool:
    """Whether this is a horizontal axis that belongs to a grid of panels."""
    return name.startswith("xaxis") and isinstance(axis, dict) and str(axis.get("anchor", "")).startswith("y")


def _set_range(panel: Panel, which: str, found: tuple[float, float]) -> None:
    (panel.ax.set_xlim if which == "x" else panel.ax.set_ylim)(*found)


def _categories(layout: Json, traces: Sequence[Json]) -> dict[str, list[Any]]:
    """The categories of each axis that has such, in their order along it."""
    found: dict[str, list[Any]] = {}
    for which in ("x", "y"):
        for trace in traces:
            name = trace.get(f"{which}axis") or which
            axis = layout.get(f"{which}axis{name[1:]}", {})
            data = [value for value in values(trace.get(which)) if value is not None]
            if axis.get("type") == "category" or any(isinstance(value, str) for value in data):
                known = found.setdefault(name, list(axis.get("categoryarray") or ()))
                known.extend(value for value in dict.fromkeys(data) if value not in known)
    return found


def _dress(panel: Panel, which: str) -> None:
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


def _crowded(axis: Any, renderer: Any) -> bool:
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
