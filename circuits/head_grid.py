"""The picture of head scores: a grid of layers and heads, with chosen heads outlined."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from circuits.head_scores import HeadScores
from circuits.nulls import SHARE
from interp.display.layout import colorscale, lay_out_heads
from interp.display.palette import DIVERGING
from interp.display.text import caption
from interp.null_runs import NULLS
from interventions.heads import Head

if TYPE_CHECKING:
    import plotly.graph_objects as go

UNITS = {
    "attribution": "minus the contribution along the probe's direction",
    "ablation": "rise of the refusal logit when ablated (nats)",
    "gradient": "approximate rise of the refusal logit when ablated (nats)",
    "interchange": "mean change of the refusal logit when interchanged (nats)",
    "shapley": "share of the change of the refusal logit when sets of heads are interchanged (nats)",
}


def head_grid(scores: HeadScores, outlined: Sequence[Head] | None = None) -> "go.Figure":
    """Every head's score by layer and head: orange suppresses refusal, blue promotes it, white does neither.

    Args:
        scores: Of all heads.
        outlined: Heads with a frame, such as the planted ones; the suppression heads if `None`.
    """
    import plotly.graph_objects as go

    grid = scores.grid()
    limit = float(np.abs(grid[np.isfinite(grid)]).max(initial=0)) or 1.0
    columns = [scores.grid(name) for name in ("low", "high", "q", "rank")]
    figure = go.Figure(
        go.Heatmap(
            z=grid,
            customdata=np.stack(columns, axis=-1),
            zmin=-limit,
            zmax=limit,
            colorscale=colorscale(DIVERGING),
            colorbar={"title": {"text": "score", "side": "right"}},
            xgap=1,
            ygap=1,
            hovertemplate="head %{y}.%{x}<br>score %{z:.3g} [%{customdata[0]:.3g}, %{customdata[1]:.3g}]<br>"
            "q %{customdata[2]:.3g}, rank %{customdata[3]}<extra></extra>",
        )
    )
    shares, beyond = scores.grid("share"), largest_null_share(scores)
    for layer, head in scores.suppressors if outlined is None else outlined:
        corners = {"x0": head - 0.5, "x1": head + 0.5, "y0": layer - 0.5, "y1": layer + 0.5}
        # A head that explains no more than the null's best one has a dotted frame.
        line = {"color": "#000000", "width": 2.5, "dash": "dot" if shares[layer, head] <= beyond else "solid"}
        figure.add_shape(type="rect", line=line, **corners)
    unit = UNITS.get(scores.method, "score")
    told = "".join(f"; largest share {beyond:.0%} by {NULLS[null]}" for null in {one.null for one in scores.nulls})
    title = f"{caption(scores.model)}: heads by {caption(scores.method)}<br><sub>{unit}{told}</sub>"
    return lay_out_heads(figure, title, *grid.shape)


def largest_null_share(scores: HeadScores) -> float:
    """The largest share of any head in any run of the null; minus infinity if none was run."""
    return max((value for null in scores.nulls if null.statistic == SHARE for value in null.values), default=-math.inf)


def grid_page(scores: HeadScores, outlined: Sequence[Head] | None = None) -> str:
    """The grid with what it says in words, as one self-contained HTML page; equal scores give equal pages."""
    from interp.display.page import page

    return page(f"Heads of {scores.model}", scores.evidence, {"heads": head_grid(scores, outlined)})
