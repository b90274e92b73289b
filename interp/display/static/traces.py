"""Traces: scatter with its lines, markers, texts, fills and error bars; bars; heatmaps with their colour bars."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from interp.display.palette import INK
from interp.display.static.axes import Panel, Panels
from interp.display.static.heatmap import draw_heatmap
from interp.display.static.reading import POINT, Json, color, numbers, plain, unknown, values
from interp.display.static.scales import color_map, limits
from interp.display.static.texts import font

SYMBOLS = {
    "circle": "o", "square": "s", "diamond": "D", "triangle-up": "^", "triangle-down": "v", "triangle-left": "<",
    "triangle-right": ">", "star": "*", "cross": "P", "x": "X", "hexagon": "h", "pentagon": "p", "x-thin": "x",
    "cross-thin": "+", "line-ns": "|", "line-ew": "_",
}  # fmt: skip
"""Markers of matplotlib's by their names in Plotly."""
_LINES = ("x", "+", "|", "_")
DASHES = {
    "solid": "-",
    "dash": (0, (5, 3)),
    "dot": (0, (1.2, 2)),
    "dashdot": (0, (5, 2, 1.2, 2)),
    "longdash": (0, (9, 3)),
}
STEPS = {"hv": "post", "vh": "pre", "hvh": "mid"}
_ANCHORS = {"left": "right", "center": "center", "right": "left"}


def draw_trace(panels: Panels, trace: Json, traces: Sequence[Json], layout: Json) -> None:
    """Draws one trace in its panel.

    Raises:
        CliffscopeError: If it is of a type that is not known here, or says something that is not.
    """
    kind = trace["type"]
    if kind not in _KINDS:
        raise unknown(f"a trace of the type {kind!r}")
    number = next(n for n, other in enumerate(traces) if other is trace)
    trace = {**trace, "_color": hue(trace, traces, layout), "_number": number}
    _KINDS[kind](panels, panels.of(trace), trace, traces, layout)


def hue(trace: Json, traces: Sequence[Json], layout: Json) -> str:
    """The colour that a trace has where it says none: by its place among all."""
    way: Sequence[str] = layout.get("colorway") or (INK,)
    return way[next(n for n, other in enumerate(traces) if other is trace) % len(way)]


def line_style(trace: Json) -> Json:
    """The keywords of a trace's line."""
    line = trace.get("line", {})
    return {
        "color": color(line.get("color") or _one(trace.get("marker", {})) or trace["_color"], _opacity(trace)),
        "linewidth": float(line.get("width", 2)) * POINT,
        "linestyle": dash(line.get("dash", "solid")),
    }


def _opacity(trace: Json) -> float:
    return float(trace.get("opacity", 1))


def _one(marker: Json) -> str | None:
    """The colour of a trace's markers, where all have the same."""
    return marker["color"] if isinstance(marker.get("color"), str) else None


def dash(name: str) -> Any:
    """A line's dashes. Raises `CliffscopeError` if there are none of that name."""
    if name not in DASHES:
        raise unknown(f"the dashes {name!r}")
    return DASHES[name]


def modes(trace: Json) -> set[str]:
    """What a scatter trace shows: `lines`, `markers`, `text`."""
    few = len(values(trace.get("x"))) < 20
    shown = set((trace.get("mode") or ("lines+markers" if few else "lines")).split("+")) - {"none"}
    if not shown <= {"lines", "markers", "text"}:
        raise unknown(f"the mode {trace['mode']!r}")
    return shown


def _scatter(panels: Panels, panel: Panel, trace: Json, traces: Sequence[Json], layout: Json) -> None:
    given = trace.get("y") if trace.get("x") is None else trace.get("x")
    x = panel.numbers(trace["x"], "x") if trace.get("x") is not None else np.arange(len(values(given)), dtype=float)
    y = panel.numbers(trace["y"], "y") if trace.get("y") is not None else np.arange(len(values(given)), dtype=float)
    if trace.get("connectgaps"):
        known = ~(np.isnan(x) | np.isnan(y))
        x, y = x[known], y[known]
    shown = modes(trace)
    _fill(panel, trace, x, y)
    common = {"clip_on": trace.get("cliponaxis", True)}
    if "lines" in shown and trace.get("line", {}).get("width", 2):
        shape = trace.get("line", {}).get("shape", "linear")
        if shape != "linear" and shape not in STEPS:
            raise unknown(f"a line of the shape {shape!r}")
        step = {"drawstyle": f"steps-{STEPS[shape]}"} if shape in STEPS else {}
        panel.ax.plot(x, y, **line_style(trace), **step, **common, solid_capstyle="round", zorder=2)
    _error_bars(panel, trace, x, y)
    if "markers" in shown:
        panel.ax.scatter(x, y, **marker_style(trace, len(x)), **common, zorder=2.5)
    if "text" in shown:
        _point_texts(panel, trace, x, y, layout)


def _fill(panel: Panel, trace: Json, x: np.ndarray, y: np.ndarray) -> None:
    fill = trace.get("fill", "none")
    if fill in ("none", ""):
        return
    face = color(trace.get("fillcolor") or trace["_color"])
    if fill == "toself":
        starts = [0, *(np.flatnonzero(np.isnan(x) | np.isnan(y)) + 1), len(x) + 1]
        for start, stop in pairwise(starts):
            if stop - 1 - start > 2:
                panel.ax.fill(x[start : stop - 1], y[start : stop - 1], facecolor=face, edgecolor="none", zorder=1)
    elif fill == "tozeroy":
        panel.ax.fill_between(x, 0, y, facecolor=face, edgecolor="none", zorder=1)
    else:
        raise unknown(f"the fill {fill!r}")


def marker_style(trace: Json, n: int) -> Json:
    """The keywords of a trace's markers."""
    marker = trace.get("marker", {})
    symbol = marker.get("symbol", "circle")
    if not isinstance(symbol, str):
        raise unknown("markers with a symbol each")
    is_open, name = symbol.endswith("-open"), symbol.removesuffix("-open")
    if name not in SYMBOLS:
        raise unknown(f"the symbol {symbol!r}")
    size = marker.get("size", 6)
    area = (numbers(size) if not isinstance(size, int | float) else np.float64(size)) * POINT
    opacity = float(marker.get("opacity", 1)) * _opacity(trace)
    faces = _faces(marker, trace.get("line", {}).get("color") or trace["_color"], opacity)
    style: Json = {"marker": SYMBOLS[name], "s": area**2}
    if SYMBOLS[name] in _LINES:
        return style | {"c": faces, "linewidths": 1.4}
    if is_open:
        return style | {"facecolors": "none", "edgecolors": faces, "linewidths": 1.2}
    line = marker.get("line", {})
    edge: Json = {"linewidths": 0}
    if line.get("color"):
        edge = {"edgecolors": color(line["color"]), "linewidths": float(line.get("width", 1)) * POINT}
    return style | {"c": faces if isinstance(faces, list) else [faces] * n} | edge


def _faces(marker: Json, fallback: str, opacity: float) -> Any:
    given = marker.get("color")
    if given is None:
        return color(fallback, opacity)
    if isinstance(given, str):
        return color(given, opacity)
    found = values(given)
    if any(isinstance(value, str) for value in found):
        return [color(value, opacity) for value in found]
    z = numbers(given)
    mapped = color_map(marker.get("colorscale"))(limits(marker, z, "c")(z))
    mapped[:, 3] *= opacity
    return list(mapped)


def _error_bars(panel: Panel, trace: Json, x: np.ndarray, y: np.ndarray) -> None:
    for which in ("x", "y"):
        error = trace.get(f"error_{which}")
        if not error or error.get("visible") is False:
            continue
        if error.get("type", "data") != "data":
            raise unknown(f"error bars of the type {error['type']!r}")
        above = numbers(error["array"])
        below = above if error.get("symmetric", "arrayminus" not in error) else numbers(error["arrayminus"])
        bounds = np.nan_to_num(np.stack([below, above]).clip(min=0))
        panel.ax.errorbar(
            x,
            y,
            **{f"{which}err": bounds},
            fmt="none",
            ecolor=color(error.get("color") or _one(trace.get("marker", {})) or trace["_color"], _opacity(trace)),
            elinewidth=float(error.get("thickness", 2)) * POINT,
            capsize=float(error.get("width", 4)) * POINT,
            capthick=float(error.get("thickness", 2)) * POINT,
            zorder=2.2,
        )


def _point_texts(panel: Panel, trace: Json, x: np.ndarray, y: np.ndarray, layout: Json) -> None:
    texts = values(trace.get("text")) if not isinstance(trace.get("text"), str) else [trace["text"]] * len(x)
    vertical, horizontal = (trace.get("textposition") or "middle center").split(" ")
    align = {"ha": _ANCHORS[horizontal], "va": {"top": "bottom", "middle": "center", "bottom": "top"}[vertical]}
    for place_x, place_y, text in zip(x, y, texts, strict=False):
        if not (np.isnan(place_x) or np.isnan(place_y)):
            panel.ax.text(place_x, place_y, plain(text), **align, **font(trace.get("textfont"), layout))


def _bar(panels: Panels, panel: Panel, trace: Json, traces: Sequence[Json], layout: Json) -> None:
    lying = trace.get("orientation") == "h"
    along, across = ("y", "x") if lying else ("x", "y")
    places, lengths = panel.numbers(trace[along], along), panel.numbers(trace[across], across)
    width = trace.get("width")
    step = float(np.min(np.diff(np.unique(places)))) if len(np.unique(places)) > 1 else 1.0
    mode = layout.get("barmode", "group")
    if mode not in ("group", "overlay"):
        raise unknown(f"bars in the mode {mode!r}")
    if width is None:
        width, places = _grouped(panel, trace, traces, mode, step * (1 - float(layout.get("bargap", 0.2))), places)
    elif not isinstance(width, int | float):
        width = numbers(width)
    marker = trace.get("marker", {})
    look = {"color": _faces(marker, trace["_color"], _opacity(trace)), "zorder": 1.5}
    base = 0 if trace.get("base") is None else numbers(trace["base"])
    lengths = np.nan_to_num(lengths)
    if lying:
        panel.ax.barh(places, lengths, height=width, left=base, linewidth=0, **look)
    else:
        panel.ax.bar(places, lengths, width=width, bottom=base, linewidth=0, **look)
    ends = (base + lengths, places) if lying else (places, base + lengths)
    _error_bars(panel, trace, *ends)


def _grouped(
    panel: Panel, trace: Json, traces: Sequence[Json], mode: str, room: float, places: np.ndarray
) -> tuple[float, np.ndarray]:
    """Bars of several traces of a panel beside one another."""
    axes = [(other.get("xaxis") or "x", other.get("yaxis") or "y") for other in traces]
    mine = [n for n, other in enumerate(traces) if other["type"] == "bar" and axes[n] == panel.names]
    if mode == "overlay" or len(mine) < 2:
        return room, places
    width = room / len(mine)
    return width, places + (mine.index(trace["_number"]) - (len(mine) - 1) / 2) * width


def _heatmap(panels: Panels, panel: Panel, trace: Json, traces: Sequence[Json], layout: Json) -> None:
    draw_heatmap(panels, panel, trace, layout)


_KINDS = {"scatter": _scatter, "scattergl": _scatter, "bar": _bar, "heatmap": _heatmap}
