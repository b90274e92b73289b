"""The picture of the cliff: mean refusal score along the thinking and over the close tokens, and the cliff by layer."""

from typing import TYPE_CHECKING

import numpy as np

from interp.display.layout import MONO, lay_out
from interp.display.palette import COLORS, CONTROL, INK, NAMES, band
from interp.display.text import caption, label
from interp.display.traces import interval_band
from interp.null_runs import NULLS
from probes.cliff import OUTCOMES, Cliff, Outcome
from probes.trajectory import GRID, MeanTrajectory

if TYPE_CHECKING:
    import plotly.graph_objects as go


_DRAWN: tuple[Outcome, ...] = ("benign", "refused", "complied")
"""One above the other: complied rollouts lie on refused ones until they fall, as a thinner line."""
_WIDTHS = {"refused": 5.0}


def cliff_figure(cliff: Cliff) -> "go.Figure":
    """Mean trajectories of complied, refused and benign rollouts with 95 % bands; the close tokens enlarged.

    Left the thinking, from its first to its last token; in the middle each close token under its own text, the last
    being the edge; right, if it was measured, the mean cliff under a probe of each layer.
    """
    from plotly.subplots import make_subplots

    has_layers = cliff.by_layer is not None and not cliff.by_layer.empty
    titles = ["thinking", "close tokens", "mean cliff by layer"]
    figure = make_subplots(
        rows=1,
        cols=3 if has_layers else 2,
        column_widths=[0.4, 0.3, 0.3] if has_layers else [0.6, 0.4],
        horizontal_spacing=0.085,
        subplot_titles=titles if has_layers else titles[:2],
    )
    for outcome in _DRAWN:
        if outcome in cliff.curves:
            _add_curve(figure, outcome, cliff.curves[outcome])
    if has_layers:
        _add_layers(figure, cliff)
    curves = list(cliff.curves.values())
    labels = [label(text) for text in curves[0].close_tokens] if curves else []
    ticks = list(range(-len(labels), 0))
    figure.update_xaxes(title_text="share of the thinking", range=[0, 1], col=1)
    figure.update_xaxes(title_text="token (the last is the edge)", tickvals=ticks, ticktext=labels, col=2)
    figure.update_xaxes(tickfont={"family": MONO, "size": 13}, col=2)
    figure.update_yaxes(range=[-0.02, 1.02])
    figure.update_yaxes(title_text="refusal score", col=1)
    if has_layers and cliff.by_layer is not None:
        every = max(1, cliff.by_layer["layer"].nunique() // 8)
        figure.update_xaxes(title_text="layer of the probe", dtick=every, col=3)
        figure.update_yaxes(title_text="plateau − edge", range=[-1.02, 1.02], col=3)
    title = f"{caption(cliff.model)}: {cliff.verdict} (probe at {caption(cliff.site)})"
    return lay_out(figure, title, height=440, top=76)


def cliff_page(cliff: Cliff) -> str:
    """The figure with the verdict's evidence as one self-contained HTML page; equal cliffs give equal pages."""
    from interp.display.page import page

    return page(f"Cliff of {cliff.model}", cliff.evidence, {"cliff": cliff_figure(cliff)})


def _add_curve(figure: "go.Figure", outcome: Outcome, curve: MeanTrajectory) -> None:
    close = np.arange(-len(curve.close_tokens), 0)
    _add_band(figure, 1, outcome, curve.thinking, curve.mean[:GRID], curve.low[:GRID], curve.high[:GRID], curve.n)
    _add_band(figure, 2, outcome, close, curve.mean[GRID:], curve.low[GRID:], curve.high[GRID:])


def _add_layers(figure: "go.Figure", cliff: Cliff) -> None:
    assert cliff.by_layer is not None
    for outcome in _DRAWN:
        mine = cliff.by_layer[cliff.by_layer["outcome"] == outcome]
        if not mine.empty:
            layer, mean, low, high = (mine[name].to_numpy() for name in ("layer", "cliff", "low", "high"))
            _add_band(figure, 3, outcome, layer, mean, low, high)
    figure.add_hline(y=0, line={"color": INK, "width": 1}, col=3)
    for null in cliff.nulls:
        # The mean cliff of complied rollouts in all runs of the null, behind the lines of the layers.
        figure.add_shape(
            type="rect",
            xref="x3 domain",
            yref="y3",
            x0=0,
            x1=1,
            y0=min(null.values),
            y1=max(null.values),
            fillcolor=band(CONTROL),
            line={"color": CONTROL, "width": 1, "dash": "dot"},
            label={"text": NULLS[null.null], "textposition": "top left", "font": {"color": INK, "size": 11}},
        )


def _add_band(
    figure: "go.Figure",
    col: int,
    outcome: Outcome,
    x: np.ndarray,
    mean: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    n: int | None = None,
) -> None:
    """A line with its interval as a band; `n` is given for the trace that stands in the legend."""
    import plotly.graph_objects as go

    color = COLORS[outcome]
    figure.add_trace(interval_band(x, low, high, band(color)).update(legendgroup=outcome), row=1, col=col)
    figure.add_trace(
        go.Scatter(
            x=x,
            y=mean,
            customdata=np.stack([low, high], axis=1),
            name=NAMES[outcome] if n is None else f"{NAMES[outcome]} (n = {n})",
            legendgroup=outcome,
            showlegend=n is not None,
            mode="lines" if col == 1 else "lines+markers",
            line={"color": color, "width": _WIDTHS.get(outcome, 2.5)},
            legendrank=1 + OUTCOMES.index(outcome),
            hovertemplate="%{y:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]<extra>" + NAMES[outcome] + "</extra>",
        ),
        row=1,
        col=col,
    )
