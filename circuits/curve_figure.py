"""The picture of an ablation curve: refusal, answers and drift against the number of heads, with random sets."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from circuits.curve import AblationCurve
from interp.display.layout import lay_out
from interp.display.palette import COLORS, CONTROL, INK, band
from interp.display.text import caption
from interp.display.traces import interval_band, name_once
from interp.null_runs import NULLS

if TYPE_CHECKING:
    import plotly.graph_objects as go

PANELS = (
    ("refusal_logit", "refusal logit at the edge (nats)", COLORS["refused"]),
    ("asr", "harmful prompts answered (ASR)", COLORS["complied"]),
    ("refusal_benign", "benign prompts refused", COLORS["benign"]),
    ("kl_benign", "drift on benign answers (nats a token)", COLORS["benign"]),
)

_Place = dict[str, int]
"""The row and column of a panel, from 1."""


def curve_figure(curve: AblationCurve) -> "go.Figure":
    """One panel a figure: the ranked heads as a line, with its interval; random sets in grey.

    The grey band of the refusal logit holds 95 % of the random sets; where only a few were measured they are points.
    """
    from plotly.subplots import make_subplots

    panels = [panel for panel in PANELS if curve.table[panel[0]].notna().any()]
    cols = min(2, len(panels))
    rows = -(-len(panels) // cols)
    figure = make_subplots(rows=rows, cols=cols, horizontal_spacing=0.13, vertical_spacing=0.2 / rows)
    for index, (name, title, color) in enumerate(panels):
        place = {"row": 1 + index // cols, "col": 1 + index % cols}
        _add_random(figure, place, curve.table, name)
        _add_ranked(figure, place, curve.table, name, color)
        if name == "refusal_logit":
            _add_nulls(figure, place, curve)
        figure.update_yaxes(title={"text": title, "font": {"size": 12}}, **place)
        if name != "refusal_logit":
            figure.update_yaxes(rangemode="tozero", **place)
    name_once(figure)
    figure.update_xaxes(title_text="heads ablated", tickvals=sorted(set(curve.table["n_heads"])))
    return lay_out(figure, f"{caption(curve.model)}: heads ablated, best first", height=170 + 270 * rows)


def curve_page(curve: AblationCurve) -> str:
    """The figure with what it says in words as one self-contained HTML page; equal curves give equal pages."""
    from interp.display.page import page

    return page(f"Ablation curve of {curve.model}", curve.evidence, {"curve": curve_figure(curve)})


def _add_ranked(figure: "go.Figure", place: _Place, table: pd.DataFrame, name: str, color: str) -> None:
    import plotly.graph_objects as go

    ranked = table[table["set"] == "ranked"]
    ranked = ranked[ranked[name].notna()]
    x = ranked["n_heads"].to_numpy()
    if f"{name}_low" in table:
        low, high = (ranked[f"{name}_{end}"].to_numpy() for end in ("low", "high"))
        figure.add_trace(interval_band(x, low, high, band(color)), **place)
    figure.add_trace(
        go.Scatter(
            x=x,
            y=ranked[name],
            text=ranked["heads"].replace("", "none"),
            name="ranked heads",
            mode="lines+markers",
            cliponaxis=False,
            line={"color": color, "width": 2.5},
            hovertemplate="%{text}: %{y:.3g}<extra></extra>",
        ),
        **place,
    )


def _add_random(figure: "go.Figure", place: _Place, table: pd.DataFrame, name: str) -> None:
    import plotly.graph_objects as go

    drawn = table[(table["set"] == "random") & table[name].notna()]
    if drawn.empty:
        return
    groups = drawn.groupby("n_heads")[name]
    if groups.size().min() >= 8:
        x = np.concatenate([[0], np.sort(drawn["n_heads"].unique())])
        start = float(table.loc[table["n_heads"] == 0, name].iloc[0])
        low, high = (np.concatenate([[start], groups.quantile(end).to_numpy()]) for end in (0.025, 0.975))
        trace = interval_band(x, low, high, band(CONTROL, 0.35))
        trace.update(name="random sets, matched by layer (95 %)")
        figure.add_trace(trace, **place)
        return
    figure.add_trace(
        go.Scatter(
            x=drawn["n_heads"],
            y=drawn[name],
            text=drawn["heads"],
            name="random sets, matched by layer",
            mode="markers",
            cliponaxis=False,
            marker={"color": INK, "symbol": "circle-open", "size": 8},
            hovertemplate="%{text}: %{y:.3g}<extra></extra>",
        ),
        **place,
    )


def _add_nulls(figure: "go.Figure", place: _Place, curve: AblationCurve) -> None:
    """Where the ranked heads of the null's runs would have brought the refusal logit, with the most heads ablated."""
    import plotly.graph_objects as go

    x, start = int(curve.table["n_heads"].max()), float(curve.table["refusal_logit"].iloc[0])
    for null in curve.nulls:
        trace = go.Scatter(
            x=[x] * len(null.values),
            y=[start + value for value in null.values],
            name=f"null: {NULLS[null.null]}",
            mode="markers",
            cliponaxis=False,
            marker={"color": INK, "symbol": "x-thin-open", "size": 9},
            hovertemplate="%{y:.3g}<extra></extra>",
        )
        figure.add_trace(trace, **place)
