"""Parts that several figures have in common: an interval as a band, and a legend that names everything once."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    import plotly.graph_objects as go


def interval_band(x: ArrayLike, low: ArrayLike, high: ArrayLike, fill: str) -> "go.Scatter":
    """An interval along a line, as a filled outline without a name; points without an interval are left out."""
    import plotly.graph_objects as go

    bounds = np.asarray([low, high], dtype=np.float64)
    known = ~np.isnan(bounds).any(axis=0)
    along, (lowest, highest) = np.asarray(x)[known], bounds[:, known]
    return go.Scatter(
        x=np.concatenate([along, along[::-1]]),
        y=np.concatenate([highest, lowest[::-1]]),
        mode="lines",
        fill="toself",
        fillcolor=fill,
        line={"width": 0},
        hoverinfo="skip",
        showlegend=False,
    )


def name_once(figure: "go.Figure") -> None:
    """In the legend stands what has a name, once for all panels."""
    named: set[str] = set()
    for trace in figure.data:
        trace.update(showlegend=trace.name is not None and trace.name not in named, legendgroup=trace.name)
        named.add(trace.name)
