"""Figures as plain specifications that plotly.js reads, each one panel that fits a phone.

The objects' own figures set several panels side by side, and their classes import torch. A panel here knows data and
axes only: the page sets panels beside each other where there is room, and gives lines and texts its own colours when it
draws, so that they reach full contrast on light and on dark. What is drawn has the colours of `interp.display.palette`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from interp.display.palette import COLORS, CONTROL, DIVERGING, NAMES, SCORES, Scale, band
from report.curves import GRID, Curve
from report.text import plotly_text

Spec = dict[str, Any]

SYMBOLS = {"complied": "square", "refused": "circle", "benign": "diamond"}
"""Outcomes differ in shape too."""

UNIT = {"range": [-0.03, 1.03]}
"""The range of a score."""


@dataclass(frozen=True)
class Panel:
    """One picture.

    Attributes:
        name: Of the panel, unique on the page.
        title: Above it.
        says: What a reader who does not see it is told.
        spec: Its traces and layout.
    """

    name: str
    title: str
    says: str
    spec: Spec


def trajectory_panels(curves: Mapping[str, Curve], name: str) -> list[Panel]:
    """Mean trajectories: along the thinking, and over the close tokens."""
    order = [outcome for outcome in COLORS if outcome in curves]
    n_close = min(len(curves[outcome].close_tokens) for outcome in order)
    thinking, closing = [], []
    for outcome in order:
        curve, symbol = curves[outcome], SYMBOLS[outcome]
        values = np.stack([curve.mean, curve.low, curve.high])
        thinking += line(NAMES[outcome], COLORS[outcome], np.linspace(0, 1, GRID), values[:, :GRID])
        closing += line(NAMES[outcome], COLORS[outcome], np.arange(-n_close, 0), values[:, -n_close:], symbol)
    tokens = curves[order[0]].close_tokens[-n_close:]
    labels = [plotly_text(token).replace(" ", "␣") or "⋯" for token in tokens]
    ends = "; ".join(
        f"{NAMES[o]} {curves[o].mean[0]:.2f} at first, {curves[o].mean[-1]:.2f} at the edge" for o in order
    )
    score = {"title": "refusal score", **UNIT}
    share = {"title": "share of the thinking", "range": [0, 1]}
    close: Spec = {"title": "token (the last is the edge)", "tickvals": list(range(-n_close, 0)), "ticktext": labels}
    close["tickfont"] = {"family": "ui-monospace, monospace"}
    says = f"Mean refusal score: {ends}."
    return [
        Panel(f"{name}-thinking", "Along the thinking", says, spec(thinking, share, score)),
        Panel(f"{name}-close", "Over the close tokens, to the edge", says, spec(closing, close, score)),
    ]


def layer_panel(layers: pd.DataFrame) -> Panel:
    """The mean cliff under a probe of each layer."""
    traces: list[Spec] = []
    for outcome in COLORS:
        mine = layers[layers["outcome"] == outcome].sort_values("layer")
        if len(mine):
            values = columns(mine, "cliff", "low", "high").T
            traces += line(NAMES[outcome], COLORS[outcome], mine["layer"], values, SYMBOLS[outcome])
    x = {"title": "layer of the probe", "dtick": every(layers["layer"].nunique())}
    y = {"title": "plateau − edge", "range": [-1.03, 1.03], "zeroline": True}
    title = "The cliff by layer of the probe"
    return Panel("layers", title, "Mean cliff of each outcome by layer; the numbers are below.", spec(traces, x, y))


def ends_panel(cliff: pd.DataFrame) -> Panel:
    """Plateau and edge of every rollout, for a run without scores of tokens."""
    traces: list[Spec] = []
    for outcome in COLORS:
        mine = cliff[cliff["outcome"] == outcome]
        marker = {"color": COLORS[outcome], "symbol": SYMBOLS[outcome], "size": 7, "opacity": 0.6}
        told = [plotly_text(str(id)) for id in mine["id"]]
        traces.append(
            {
                **points(NAMES[outcome], mine["plateau"], mine["edge"], marker),
                "text": told,
                "hovertemplate": "%{text}<br>plateau %{x:.3f}, edge %{y:.3f}<extra></extra>",
            }
        )
    title = "Plateau and edge of every rollout"
    says = "Rollouts by plateau and score at the edge; those far below the diagonal fall."
    return Panel(
        "ends", title, says, spec(traces, {"title": "plateau", **UNIT}, {"title": "score at the edge", **UNIT})
    )


def sweep_panel(rows: pd.DataFrame, control: str, title: str) -> Panel:
    """The AUROC of probes by layer and position."""
    positions, layers = list(dict.fromkeys(rows["position"])), sorted(set(rows["layer"].tolist()))
    mine = rows[rows["control"] == control].drop_duplicates(["layer", "position"]).set_index(["layer", "position"])
    cells = columns(mine.reindex(pd.MultiIndex.from_product([layers, positions])), "auroc", "auroc_low", "auroc_high")
    cells = cells.reshape(len(layers), len(positions), 3)
    trace = heatmap([plotly_text(str(position)) for position in positions], layers, cells[..., 0], SCORES, (0, 1))
    trace["colorbar"]["title"] = {"text": "AUROC"}
    trace["customdata"] = numbers(cells[..., 1:])
    trace["hovertemplate"] = (
        "layer %{y}, %{x}<br>AUROC %{z:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]<extra></extra>"
    )
    x = {"title": "position", "type": "category", "tickangle": -40}
    drawn = spec([trace], x, {"title": "layer", "dtick": every(len(layers))}, grid=False)
    return Panel(f"sweep-{control}", title, f"{title} by layer and position; the numbers are below.", drawn)


def head_panel(rows: pd.DataFrame, method: str, title: str, outlined: Sequence[tuple[int, int]]) -> Panel:
    """The score of every head: orange suppresses refusal, blue promotes it; framed are those named."""
    layer, head = rows["layer"].to_numpy(int), rows["head"].to_numpy(int)
    cells = np.full((layer.max() + 1, head.max() + 1, 5), math.nan)
    cells[layer, head] = columns(rows, "score", "low", "high", "q", "rank")
    scores = cells[..., 0]
    limit = float(np.abs(scores[np.isfinite(scores)]).max(initial=0)) or 1.0
    trace = heatmap(list(range(cells.shape[1])), list(range(cells.shape[0])), scores, DIVERGING, (-limit, limit))
    trace["colorbar"]["title"] = {"text": "score"}
    trace["customdata"] = numbers(cells[..., 1:])
    trace["hovertemplate"] = (
        "head %{y}.%{x}<br>score %{z:.3g} [%{customdata[0]:.3g}, %{customdata[1]:.3g}]<br>"
        "q %{customdata[2]:.3g}, rank %{customdata[3]}<extra></extra>"
    )
    x, y = ({"title": name, "dtick": every(n)} for name, n in (("head", cells.shape[1]), ("layer", cells.shape[0])))
    drawn = spec([trace], x, y, grid=False)
    frame = {"type": "rect", "line": {"color": "#000000", "width": 2.5}}
    drawn["layout"]["shapes"] = [
        {**frame, "x0": column - 0.5, "x1": column + 0.5, "y0": row - 0.5, "y1": row + 0.5} for row, column in outlined
    ]
    named = ", ".join(f"{row}.{column}" for row, column in outlined) or "none"
    return Panel(f"heads-{method}", title, f"Score of every head. Suppression heads: {named}.", drawn)


def curve_panel(table: pd.DataFrame, name: str, title: str, unit: str, color: str) -> Panel:
    """One figure against the number of heads ablated, with random sets of heads in grey."""
    ranked = table[(table["set"] == "ranked") & table[name].notna()].sort_values("n_heads")
    drawn = table[(table["set"] == "random") & table[name].notna()]
    random = points(
        "random sets", drawn["n_heads"], drawn[name], {"color": CONTROL, "symbol": "circle-open", "size": 7}
    )
    random |= {"text": [plotly_text(str(heads)) for heads in drawn["heads"]], "hovertemplate": "%{text}: %{y:.3g}"}
    values = columns(ranked, name, f"{name}_low", f"{name}_high").T
    traces = [random, *line("ranked heads", color, ranked["n_heads"], values, "circle")]
    says = f"{title} against the number of heads ablated; the numbers are below."
    return Panel(
        f"curve-{name}",
        title,
        says,
        spec(traces, {"title": "heads ablated"}, {"title": unit, **from_zero(table[name], unit)}),
    )


def dose_panel(table: pd.DataFrame, name: str, title: str, unit: str, color: str) -> Panel:
    """One figure against the dose of steering, a line for each layer, with random directions in grey."""
    drawn = table[(table["set"] == "random") & table[name].notna()]
    marker = {"color": CONTROL, "symbol": "circle-open", "size": 7}
    traces = [points("random directions", drawn["alpha"], drawn[name], marker)]
    dashes = ("solid", "dash", "dot", "dashdot")
    mine = table[(table["set"] == "vector") & table[name].notna()].sort_values("alpha")
    for number, (layer, rows) in enumerate(mine.groupby("layer")):
        values = columns(rows, name, f"{name}_low", f"{name}_high").T
        made = line(f"layer {layer:g}", color, rows["alpha"], values, "circle")
        made[-1]["line"]["dash"] = dashes[number % len(dashes)]
        traces += made
    says = f"{title} against the dose of steering; the numbers are below."
    return Panel(
        f"doses-{name}", title, says, spec(traces, {"title": "dose α"}, {"title": unit, **from_zero(table[name], unit)})
    )


def line(name: str, color: str, x: Any, values: np.ndarray, symbol: str | None = None) -> list[Spec]:
    """A line over its interval as a band.

    Args:
        name: What hovering calls it.
        color: Of both.
        x: Places.
        values: `[3, place]`: mean, low, high; no band is drawn where an interval is not known.
        symbol: Of markers at the places, if there are any.
    """
    x = list(x)
    bounds = [*values[2], *values[1][::-1]]
    fill = {"mode": "lines", "fill": "toself", "fillcolor": band(color), "line": {"width": 0}, "hoverinfo": "skip"}
    under = {"type": "scatter", "x": numbers([*x, *x[::-1]]), "y": numbers(bounds), **fill}
    over = {
        "type": "scatter",
        "mode": "lines" if symbol is None else "lines+markers",
        "x": numbers(x),
        "y": numbers(values[0]),
        "customdata": numbers(values[1:].T),
        "line": {"color": color, "width": 2.5},
        "marker": {"symbol": symbol or "circle", "size": 8},
        "hovertemplate": plotly_text(name) + " %{y:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]<extra></extra>",
    }
    return [under, over] if np.isfinite(values).all() else [over]


def points(name: str, x: Any, y: Any, marker: Spec) -> Spec:
    """Markers without a line."""
    shown = {"mode": "markers", "marker": marker, "hovertemplate": plotly_text(name) + " %{y:.3g}<extra></extra>"}
    return {"type": "scatter", "x": numbers(x), "y": numbers(y), **shown}


def heatmap(x: Sequence[Any], y: Sequence[Any], z: np.ndarray, scale: Scale, ends: tuple[float, float]) -> Spec:
    """Cells with a gap between them."""
    colors = [[stop, color] for stop, color in scale]
    look = {"colorscale": colors, "zmin": ends[0], "zmax": ends[1], "xgap": 1, "ygap": 1}
    return {
        "type": "heatmap",
        "x": x,
        "y": y,
        "z": numbers(z),
        "colorbar": {"thickness": 12, "outlinewidth": 0},
        **look,
    }


def spec(traces: list[Spec], x: Spec, y: Spec, *, grid: bool = True) -> Spec:
    """Traces with two axes, and no legend: the page has one of its own, which does not move the axes."""
    axes = {}
    for name, axis in (("xaxis", x), ("yaxis", y)):
        axis = {"zeroline": False, "showgrid": grid, "automargin": True, **axis}
        axes[name] = {**axis, "title": {"text": axis["title"], "standoff": 8}}
    return {"data": traces, "layout": {**axes, "showlegend": False, "margin": {"l": 56, "r": 12, "t": 12, "b": 48}}}


def from_zero(values: Any, unit: str) -> Spec:
    """The range of an axis on which zero is seen: shares that are all nearly 0 must not look large."""
    if unit != "share":
        return {"rangemode": "tozero"}
    return {"range": [-0.005, max(0.1, 1.1 * float(np.nanmax(values)))]}


def columns(rows: pd.DataFrame, *names: str) -> np.ndarray:
    """Columns of numbers as `[row, name]`; NaN for a column that is not there."""
    return np.stack([rows[n].to_numpy(float) if n in rows else np.full(len(rows), math.nan) for n in names], axis=-1)


def every(count: int) -> int:
    """The step of the ticks of an axis with this many places."""
    return max(1, -(-count // 16))


def numbers(values: Any) -> list[Any]:
    """Numbers of five digits, as more cannot be seen; `None` for what is not finite."""
    if isinstance(values, np.ndarray) and values.ndim > 1:
        return [numbers(row) for row in values]
    return [float(f"{value:.5g}") if math.isfinite(value) else None for value in map(float, values)]
