"""The picture of a dose-response: one column a layer, one row a figure, against α; random directions in grey."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from interp.display.layout import lay_out
from interp.display.palette import COLORS, CONTROL, INK, band
from interp.display.text import caption
from interp.display.traces import interval_band, name_once
from interventions.dose.options import CLAMP
from interventions.dose.response import DoseResponse
from interventions.dose.smallest import SmallestDose

if TYPE_CHECKING:
    import plotly.graph_objects as go

PER_FIGURE = 6
"""Layers side by side; more go into further figures below."""


class _Curve(NamedTuple):
    """One figure of the table: its name there and in the legend, how it is drawn, and in which row of panels."""

    name: str
    title: str
    color: str
    dash: str
    row: int


_CURVES = (
    _Curve("asr", "harmful prompts answered (ASR)", COLORS["complied"], "solid", 1),
    _Curve("refusal_benign", "benign prompts refused", COLORS["benign"], "dash", 1),
    _Curve("useless", "useless: unclosed, blank or looping", INK, "solid", 2),
    _Curve("kl_benign", "drift on benign answers", COLORS["benign"], "solid", 3),
    _Curve("refusal_logit", "refusal logit at the edge", COLORS["refused"], "solid", 4),
)
_ROWS = ("share of prompts", "useless", "drift (nats a token)", "refusal logit (nats)")
_HEIGHTS = (0.4, 0.15, 0.225, 0.225)
_UNITS = {"scale": "α (× distance of the class means)", "norm": "α (× norm of the activation)", "absolute": "α"}
_AXES = {"transport": "strength of the map", "ablate": "share taken out", CLAMP: "α (clamped to)"}


def dose_figures(response: DoseResponse, found: SmallestDose | None = None) -> "dict[str, go.Figure]":
    """Figures by element id, of up to six layers each, with the same axes.

    Bands are 95 % intervals. A vertical line marks the smallest dose, if one is given that meets its target.
    """
    layers = [int(layer) for layer in response.facts["options"]["layers"]]
    parts = [layers[first : first + PER_FIGURE] for first in range(0, len(layers), PER_FIGURE)]
    return {f"doses-{number}": _figure(response, part, found) for number, part in enumerate(parts, start=1)}


def dose_figure(response: DoseResponse, found: SmallestDose | None = None) -> "go.Figure":
    """One figure of at most six layers, spread over those that were tried; the smallest dose's is among them."""
    found = found or response.smallest()
    layers = [int(layer) for layer in response.facts["options"]["layers"]]
    if len(layers) > PER_FIGURE:
        spread = {round(i * (len(layers) - 1) / (PER_FIGURE - 1)) for i in range(PER_FIGURE)}
        shown = {layers[place] for place in spread}
        if found.met and (best := int(found.dose["layer"])) not in shown:
            shown = shown - {min(shown, key=lambda layer: abs(layer - best))} | {best}
        layers = [layer for layer in layers if layer in shown]
    return _figure(response, layers, found)


def dose_page(response: DoseResponse, found: SmallestDose | None = None) -> str:
    """The figures with what they say in words as one self-contained HTML page; equal tables give equal pages."""
    from interp.display.page import page

    found = found or response.smallest()
    return page(f"Doses: {response.model}", found.evidence, dose_figures(response, found))


def _figure(response: DoseResponse, layers: Sequence[int], found: SmallestDose | None) -> "go.Figure":
    from plotly.subplots import make_subplots

    figure = make_subplots(
        rows=len(_ROWS),
        cols=len(layers),
        shared_xaxes=True,
        shared_yaxes=True,
        row_heights=_HEIGHTS,
        vertical_spacing=0.035,
        horizontal_spacing=0.02,
        column_titles=[f"layer {layer}" for layer in layers],
    )
    for col, layer in enumerate(layers, start=1):
        for curve in _CURVES:
            _add_controls(figure, col, response, layer, curve)
            _add_vector(figure, col, response, layer, curve)
        if found is not None and found.met and found.dose["layer"] == layer:
            figure.add_vline(x=float(found.dose["alpha"]), line={"color": INK, "width": 1.5, "dash": "dot"}, col=col)
    name_once(figure)
    return _laid_out(figure, response, len(layers))


def _laid_out(figure: "go.Figure", response: DoseResponse, n_layers: int) -> "go.Figure":
    options = response.facts["options"]
    for row, title in enumerate(_ROWS, start=1):
        figure.update_yaxes(title={"text": title, "font": {"size": 11}}, row=row, col=1)
    for row in (1, 2):
        figure.update_yaxes(tickformat=".0%", range=[-0.04, 1.04], row=row)
    figure.update_yaxes(range=_range(response.table, "kl_benign"), row=3)
    figure.update_yaxes(range=_range(response.table, "refusal_logit"), row=4)
    middle = (n_layers + 1) // 2
    figure.update_xaxes(title_text=_AXES.get(options["mode"], _UNITS[options["units"]]), row=len(_ROWS), col=middle)
    named = {"add": "added", "ablate": "ablated", CLAMP: "clamped", "transport": "transported"}[options["mode"]]
    kind = response.facts["vector"]["kind"]
    title = f"{caption(response.model)}: {caption(kind)} {named}, scope {caption(options['scope'])}"
    return lay_out(figure, title, height=780, top=76, bottom=140)


def _add_vector(figure: "go.Figure", col: int, response: DoseResponse, layer: int, curve: _Curve) -> None:
    import plotly.graph_objects as go

    rows = _curve_rows(response, "vector", None, layer)
    x = rows["alpha"].to_numpy()
    low, high = (rows[f"{curve.name}_{end}"].to_numpy() for end in ("low", "high"))
    figure.add_trace(interval_band(x, low, high, band(curve.color)), row=curve.row, col=col)
    figure.add_trace(
        go.Scatter(
            x=x,
            y=rows[curve.name],
            name=curve.title,
            mode="lines+markers",
            cliponaxis=False,
            line={"color": curve.color, "width": 2.5, "dash": curve.dash},
            marker={"size": 6},
            hovertemplate=f"{curve.title}: %{{y:.3g}} at α = %{{x:g}}<extra></extra>",
        ),
        row=curve.row,
        col=col,
    )
    if response.mode == CLAMP:
        unsteered = float(response.unsteered[curve.name])
        line = {"color": curve.color, "width": 1, "dash": "dot"}
        figure.add_hline(y=unsteered, line=line, row=curve.row, col=col)


def _add_controls(figure: "go.Figure", col: int, response: DoseResponse, layer: int, curve: _Curve) -> None:
    import plotly.graph_objects as go

    # Two figures share a row: there the legend says which of them it is.
    alone = sum(other.row == curve.row for other in _CURVES) == 1
    name = "random directions" if alone else f"random directions: {curve.title}"
    for draw in range(response.facts["options"]["controls"]):
        rows = _curve_rows(response, "random", draw, layer)
        figure.add_trace(
            go.Scatter(
                x=rows["alpha"],
                y=rows[curve.name],
                name=name,
                mode="lines",
                cliponaxis=False,
                line={"color": CONTROL, "width": 1.3, "dash": curve.dash if not alone else "dot"},
                hovertemplate=f"random direction {draw}: %{{y:.3g}} at α = %{{x:g}}<extra></extra>",
            ),
            row=curve.row,
            col=col,
        )


def _curve_rows(response: DoseResponse, kind: str, draw: int | None, layer: int) -> pd.DataFrame:
    """One layer's rows by α, with the unsteered model at α = 0 where that is the same thing."""
    table = response.table
    chosen = (table["set"] == kind) & (table["layer"] == layer).fillna(False)
    if draw is not None:
        chosen &= (table["draw"] == draw).fillna(False)
    if response.mode != CLAMP:
        chosen |= table["set"] == "unsteered"
    return table[chosen].sort_values("alpha")


def _range(table: pd.DataFrame, name: str) -> list[float] | None:
    """The same axis for all layers and figures."""
    values = table[[f"{name}_low", name, f"{name}_high"]].to_numpy(dtype=float)
    if np.isnan(values).all():
        return None
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    margin = 0.06 * (high - low or 1.0)
    return [low - margin, high + margin]
