"""Panels: pairs of axes, placed by their domains, with the ranges and categories that they share."""

from collections.abc import Iterator, Sequence
from typing import Any

from interp.display.static.reading import Json, unknown, values
from interp.display.static.ticks import Panel, crowded, dress, turn


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
                dress(panel, which)
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
            elif crowded(panel.ax.xaxis, renderer):
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
