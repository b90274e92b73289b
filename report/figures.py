"""Figures as plain specifications that plotly.js reads: no Plotly is imported, and each fits a phone.

The objects' own figures set several panels side by side, which is too wide for a phone; and they belong to classes that
import torch. A specification here is one panel; the page sets panels side by side where there is room. Colours are those
of `interp.display.palette`; lines of axes and texts take the page's colours when it is drawn.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from interp.display.palette import COLORS, CONTROL, DIVERGING, NAMES, band
from report.curves import GRID, Curve
from report.text import plotly_text

Spec = dict[str, Any]


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
    thinking: list[Spec] = []
    closing: list[Spec] = []
    n_close = min((len(curves[o].close_tokens) for o in order), default=0)
    for outcome in order:
        curve = curves[outcome]
        label = f"{NAMES[outcome]} (n = {curve.n})"
        head, tail = slice(0, GRID), slice(len(curve.mean) - n_close, None)
        thinking += _line(outcome, label, np.linspace(0, 1, GRID), *(_part(curve, head)), legend=True)
        closing += _line(outcome, label, np.arange(-n_close, 0), *(_part(curve, tail)), markers=True)
    tokens = curves[order[0]].close_tokens[-n_close:] if order and n_close else ()
    ticks = {"tickvals": list(range(-n_close, 0)), "ticktext": [_tick(token) for token in tokens]}
    scores = {"title": "refusal score", "range": [-0.03, 1.03]}
    ends = "; ".join(
        f"{NAMES[o]}: {curves[o].mean[0]:.2f} at the first token, {curves[o].mean[-1]:.2f} at the edge" for o in order
    )
    return [
        Panel(f"{name}-thinking", "Along the thinking", f"Mean refusal score along the thinking. {ends}.",
              _spec(thinking, {"title": "share of the thinking", "range": [0, 1]}, scores)),
        Panel(f"{name}-close", "Over the close tokens, to the edge", f"Mean refusal score at each close token. {ends}.",
              _spec(closing, {"title": "token (the last is the edge)", **ticks, "tickfont": _MONO}, scores)),
    ]  # fmt: skip


def layer_panel(layers: pd.DataFrame) -> Panel:
    """The mean cliff under a probe of each layer."""
    traces: list[Spec] = []
    for outcome in COLORS:
        mine = layers[layers["outcome"] == outcome].sort_values("layer")
        if len(mine):
            columns = [
                mine[c].to_numpy(float) if c in mine else np.full(len(mine), math.nan) for c in ("cliff", "low", "high")
            ]
            traces += _line(outcome, NAMES[outcome], mine["layer"].to_numpy(), *columns, markers=True, legend=True)
    x = {"title": "layer of the probe", "dtick": _every(layers["layer"].nunique())}
    spec = _spec(traces, x, {"title": "plateau − edge", "range": [-1.03, 1.03], "zeroline": True})
    return Panel("layers", "The cliff by layer of the probe", "Mean cliff of each outcome by layer.", spec)


def ends_panel(cliff: pd.DataFrame) -> Panel:
    """Plateau and edge of every rollout, for a run without scores of tokens."""
    traces: list[Spec] = []
    for outcome in COLORS:
        mine = cliff[cliff["outcome"] == outcome]
        if len(mine):
            traces.append({
                "type": "scatter", "mode": "markers", "name": f"{NAMES[outcome]} (n = {len(mine)})",
                "x": _numbers(mine["plateau"]), "y": _numbers(mine["edge"]), "text": [plotly_text(str(id)) for id in mine["id"]],
                "marker": {"color": COLORS[outcome], "size": 7, "opacity": 0.6},
                "hovertemplate": "%{text}<br>plateau %{x:.3f}, edge %{y:.3f}<extra></extra>",
            })  # fmt: skip
    spec = _spec(
        traces, {"title": "plateau", "range": [-0.03, 1.03]}, {"title": "score at the edge", "range": [-0.03, 1.03]}
    )
    return Panel("ends", "Plateau and edge of every rollout", "Below the diagonal a rollout falls.", spec)


def sweep_panel(rows: pd.DataFrame, control: str, title: str) -> Panel:
    """The AUROC of probes by layer and position."""
    mine = rows[rows["control"] == control]
    positions, layers = list(dict.fromkeys(rows["position"])), sorted(set(rows["layer"].tolist()))
    grid = mine.drop_duplicates(["layer", "position"]).set_index(["layer", "position"])
    grid = grid.reindex(pd.MultiIndex.from_product([layers, positions]))
    shape = (len(layers), len(positions))
    bounds = [
        grid[c].to_numpy(float).reshape(shape) if c in grid else np.full(shape, math.nan)
        for c in ("auroc_low", "auroc_high")
    ]
    trace = {
        "type": "heatmap", "x": [plotly_text(str(p)) for p in positions], "y": layers,
        "z": _grid(grid["auroc"].to_numpy(float).reshape(shape)), "customdata": _grid(np.stack(bounds, -1)),
        "zmin": 0, "zmax": 1, "colorscale": _scale(reversed_=True), "xgap": 1, "ygap": 1,
        "colorbar": {"title": {"text": "AUROC"}, "thickness": 12, "outlinewidth": 0},
        "hovertemplate": "layer %{y}, %{x}<br>AUROC %{z:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]<extra></extra>",
    }  # fmt: skip
    spec = _spec(
        [trace],
        {"title": "position", "type": "category", "tickangle": -40},
        {"title": "layer", "dtick": _every(len(layers))},
        grid=False,
    )
    return Panel(f"sweep-{control}", title, f"{title} by layer and position.", spec)


def head_panel(rows: pd.DataFrame, method: str, title: str, outlined: Sequence[tuple[int, int]]) -> Panel:
    """The score of every head: orange suppresses refusal, blue promotes it; framed are those named."""
    n_layers, n_heads = int(rows["layer"].max()) + 1, int(rows["head"].max()) + 1
    layer, head = rows["layer"].to_numpy(int), rows["head"].to_numpy(int)
    z, more = np.full((n_layers, n_heads), math.nan), np.full((n_layers, n_heads, 4), math.nan)
    z[layer, head] = rows["score"]
    for place, name in enumerate(("low", "high", "q", "rank")):
        more[layer, head, place] = rows[name]
    limit = float(np.abs(z[np.isfinite(z)]).max(initial=0)) or 1.0
    trace = {
        "type": "heatmap", "x": list(range(n_heads)), "y": list(range(n_layers)), "z": _grid(z), "customdata": _grid(more),
        "zmin": -limit, "zmax": limit, "colorscale": _scale(), "xgap": 1, "ygap": 1,
        "colorbar": {"title": {"text": "score"}, "thickness": 12, "outlinewidth": 0},
        "hovertemplate": "head %{y}.%{x}<br>score %{z:.3g} [%{customdata[0]:.3g}, %{customdata[1]:.3g}]<br>"
        "q %{customdata[2]:.3g}, rank %{customdata[3]}<extra></extra>",
    }  # fmt: skip
    spec = _spec(
        [trace], {"title": "head", "dtick": _every(n_heads)}, {"title": "layer", "dtick": _every(n_layers)}, grid=False
    )
    spec["layout"]["shapes"] = [
        {
            "type": "rect",
            "x0": h - 0.5,
            "x1": h + 0.5,
            "y0": la - 0.5,
            "y1": la + 0.5,
            "line": {"color": "#000000", "width": 2.5},
        }
        for la, h in outlined
    ]
    named = ", ".join(f"{la}.{h}" for la, h in outlined) or "none"
    return Panel(f"heads-{method}", title, f"Score of every head by layer and head. Suppression heads: {named}.", spec)


def curve_panel(table: pd.DataFrame, name: str, title: str, color: str) -> Panel:
    """One figure against the number of heads ablated, with random sets of heads in grey."""
    ranked = table[(table["set"] == "ranked") & table[name].notna()].sort_values("n_heads")
    drawn = table[(table["set"] == "random") & table[name].notna()]
    traces: list[Spec] = [{
        "type": "scatter", "mode": "markers", "name": "random sets of heads", "x": _numbers(drawn["n_heads"]), "y": _numbers(drawn[name]),
        "text": [plotly_text(str(h)) for h in drawn["heads"]], "marker": {"color": CONTROL, "symbol": "circle-open", "size": 7},
        "hovertemplate": "%{text}: %{y:.3g}<extra></extra>",
    }] if len(drawn) else []  # fmt: skip
    bounds = [
        ranked[f"{name}_{end}"].to_numpy(float) if f"{name}_{end}" in ranked else np.full(len(ranked), math.nan)
        for end in ("low", "high")
    ]
    traces += _line(
        "",
        "ranked heads",
        ranked["n_heads"].to_numpy(),
        ranked[name].to_numpy(float),
        *bounds,
        markers=True,
        legend=True,
        color=color,
    )
    spec = _spec(traces, {"title": "heads ablated"}, {"title": title})
    return Panel(f"curve-{name}", title, f"{title} against the number of heads ablated.", spec)


def dose_panel(table: pd.DataFrame, name: str, title: str, color: str) -> Panel:
    """One figure against the dose of steering, a line for each layer, with random directions in grey."""
    traces: list[Spec] = []
    for kind, shade, label in (("random", CONTROL, "random directions"), ("vector", color, "vector")):
        mine = table[(table["set"] == kind) & table[name].notna()]
        for number, (layer, rows) in enumerate(mine.groupby("layer")):
            rows = rows.sort_values("alpha")
            traces.append({
                "type": "scatter", "mode": "markers" if kind == "random" else "lines+markers", "name": f"{label}, layer {int(layer)}",
                "x": _numbers(rows["alpha"]), "y": _numbers(rows[name]), "line": {"color": shade, "dash": _DASHES[number % len(_DASHES)]},
                "marker": {"color": shade, "symbol": "circle-open" if kind == "random" else "circle"},
                "hovertemplate": "dose %{x:g}: %{y:.3g}<extra></extra>",
            })  # fmt: skip
    spec = _spec(traces, {"title": "dose α"}, {"title": title})
    return Panel(f"doses-{name}", title, f"{title} against the dose of steering.", spec)


_MONO = {"family": "ui-monospace, monospace", "size": 12}
_DASHES = ("solid", "dash", "dot", "dashdot")


def _line(
    key: str, label: str, x: np.ndarray, y: np.ndarray, low: np.ndarray, high: np.ndarray,
    *, markers: bool = False, legend: bool = False, color: str | None = None,
) -> list[Spec]:  # fmt: skip
    """A line over its interval as a band."""
    color = color or COLORS[key]
    common = {"type": "scatter", "legendgroup": label}
    fill = {**common, "mode": "lines", "fill": "toself", "fillcolor": band(color), "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False,
            "x": _numbers([*x, *x[::-1]]), "y": _numbers([*high, *low[::-1]])}  # fmt: skip
    line = {**common, "mode": "lines+markers" if markers else "lines", "name": plotly_text(label), "showlegend": legend,
            "line": {"color": color, "width": 2.5}, "x": _numbers(x), "y": _numbers(y), "customdata": _grid(np.stack([low, high], -1)),
            "hovertemplate": "%{y:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]<extra></extra>"}  # fmt: skip
    return [fill, line] if np.isfinite(low).all() and np.isfinite(high).all() else [line]


def _spec(traces: list[Spec], x: Spec, y: Spec, *, grid: bool = True) -> Spec:
    axes = {}
    for name, axis in (("xaxis", x), ("yaxis", y)):
        axis = {"zeroline": False, "showgrid": grid, "automargin": True, **axis}
        axes[name] = {**axis, "title": {"text": axis["title"]}}
    legend = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}
    return {"data": traces, "layout": {**axes, "legend": legend, "margin": {"l": 56, "r": 12, "t": 12, "b": 56}}}


def _part(curve: Curve, part: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return curve.mean[part], curve.low[part], curve.high[part]


def _tick(token: str) -> str:
    return plotly_text(token).replace(" ", "␣") or "⋯"


def _scale(reversed_: bool = False) -> list[list[Any]]:
    colors = [color for _, color in DIVERGING]
    return [[stop, color] for (stop, _), color in zip(DIVERGING, colors[::-1] if reversed_ else colors, strict=True)]


def _every(count: int) -> int:
    return max(1, -(-count // 16))


def _numbers(values: Any) -> list[Any]:
    """Numbers of five digits: more cannot be seen, and would make the page larger."""
    return [_number(value) for value in values]


def _number(value: Any) -> Any:
    value = float(value)
    return float(f"{value:.5g}") if math.isfinite(value) else None


def _grid(values: np.ndarray) -> list[Any]:
    return [_grid(row) for row in values] if values.ndim > 1 else _numbers(values)
