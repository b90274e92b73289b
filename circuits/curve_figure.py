"""The picture of an ablation curve: refusal, answers and drift against the number of heads, with random sets."""

from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from circuits.curve import AblationCurve
from interp.display.palette import COLORS, CONTROL, INK, band
from interp.null_runs import NULLS

if TYPE_CHECKING:
    import plotly.graph_objects as go

PANELS = (
    ("refusal_logit", "refusal logit at the edge (nats)", COLORS["refused"]),
    ("asr", "harmful prompts answered (ASR)", COLORS["complied"]),
    ("refusal_benign", "benign prompts refused", COLORS["benign"]),
    ("kl_benign", "drift on benign answers (nats a token)", COLORS["benign"]),
)


def curve_figure(curve: AblationCurve) -> "go.Figure":
    """One panel a figure: the ranked heads as a line, with its interval; random sets in grey.

    The grey band of the refusal logit holds 95 % of the random sets; where only a few were measured they are points.
    """
    from plotly.subplots import make_subplots

    panels = [panel for panel in PANELS if curve.table[panel[0]].notna().any()]
    figure = make_subplots(rows=1, cols=len(panels), horizontal_spacing=0.07)
    for col, (name, title, color) in enumerate(panels, start=1):
        _add_random(figure, col, curve.table, name)
        _add_ranked(figure, col, curve.table, name, color)
        if name == "refusal_logit":
            _add_nulls(figure, col, curve)
        figure.update_yaxes(title_text=title, col=col)
        if name != "refusal_logit":
            figure.update_yaxes(rangemode="tozero", col=col)
    _name_once(figure)
    figure.update_xaxes(title_text="heads ablated", tickvals=sorted(set(curve.table["n_heads"])))
    figure.update_layout(
        title={"text": f"{escape(curve.model)}: heads ablated, best first", "x": 0.01},
        template="plotly_white",
        height=420,
        legend={"orientation": "h", "y": -0.25},
        margin={"t": 60, "b": 100},
    )
    return figure


def curve_page(curve: AblationCurve) -> str:
    """The figure with what it says in words as one self-contained HTML page; equal curves give equal pages."""
    from interp.display.page import page

    return page(f"Ablation curve of {curve.model}", curve.evidence, {"curve": curve_figure(curve)})


def _add_ranked(figure: "go.Figure", col: int, table: pd.DataFrame, name: str, color: str) -> None:
    import plotly.graph_objects as go

    ranked = table[table["set"] == "ranked"]
    ranked = ranked[ranked[name].notna()]
    x = ranked["n_heads"].to_numpy()
    if f"{name}_low" in table:
        low, high = (ranked[f"{name}_{end}"].to_numpy() for end in ("low", "high"))
        figure.add_trace(_band(x, low, high, band(color)), row=1, col=col)
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
        row=1,
        col=col,
    )


def _add_random(figure: "go.Figure", col: int, table: pd.DataFrame, name: str) -> None:
    import plotly.graph_objects as go

    drawn = table[(table["set"] == "random") & table[name].notna()]
    if drawn.empty:
        return
    groups = drawn.groupby("n_heads")[name]
    if groups.size().min() >= 8:
        x = np.concatenate([[0], np.sort(drawn["n_heads"].unique())])
        start = float(table.loc[table["n_heads"] == 0, name].iloc[0])
        low, high = (np.concatenate([[start], groups.quantile(end).to_numpy()]) for end in (0.025, 0.975))
        trace = _band(x, low, high, band(CONTROL, 0.35))
        trace.update(name="random sets, matched by layer (95 %)")
        figure.add_trace(trace, row=1, col=col)
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
        row=1,
        col=col,
    )


def _add_nulls(figure: "go.Figure", col: int, curve: AblationCurve) -> None:
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
        figure.add_trace(trace, row=1, col=col)


def _band(x: np.ndarray, low: np.ndarray, high: np.ndarray, fill: str) -> Any:
    import plotly.graph_objects as go

    return go.Scatter(
        x=np.concatenate([x, x[::-1]]),
        y=np.concatenate([high, low[::-1]]),
        mode="lines",
        fill="toself",
        fillcolor=fill,
        line={"width": 0},
        hoverinfo="skip",
    )


def _name_once(figure: "go.Figure") -> None:
    """In the legend stands what has a name, once for all panels."""
    named: set[str] = set()
    for trace in figure.data:
        trace.update(showlegend=trace.name is not None and trace.name not in named, legendgroup=trace.name)
        named.add(trace.name)
