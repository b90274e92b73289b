"""The picture of a head mask: a grid of layers and heads, in which the masked ones stand out with their scales."""

from typing import TYPE_CHECKING

from interp.display.layout import colorscale, lay_out_heads
from interp.display.palette import SCORES, at, legible
from interp.display.text import caption
from interventions.masks.head_mask import HeadMask

if TYPE_CHECKING:
    import plotly.graph_objects as go

N_WRITTEN = 64
"""Most masked heads whose scale is written into their cell."""


def mask_grid(mask: HeadMask) -> "go.Figure":
    """What each head's output is multiplied by: white is untouched, orange weakened or turned round, blue amplified."""
    import plotly.graph_objects as go

    n_layers, n_heads = mask.scale.shape
    # 1, which changes nothing, is the middle; 0 and 2 are the ends unless a scale lies beyond.
    reach = max(1.0, float((mask.scale - 1).abs().max()))
    figure = go.Figure(
        go.Heatmap(
            z=mask.scale.numpy(),
            zmin=1 - reach,
            zmax=1 + reach,
            colorscale=colorscale(SCORES),
            colorbar={"title": {"text": "scale", "side": "right"}},
            xgap=1,
            ygap=1,
            hovertemplate="head %{y}.%{x}<br>scale %{z:.3g}<extra></extra>",
        )
    )
    if len(mask.heads) <= N_WRITTEN:
        for head in mask.heads:
            scale = float(mask.scale[head])
            color = legible(at(SCORES, (scale - 1) / (2 * reach) + 0.5))
            note = {"x": head.head, "y": head.layer, "text": f"{scale:.2g}", "font": {"color": color, "size": 11}}
            figure.add_annotation(**note, showarrow=False)
    model = caption(mask.model or "a model without a name")
    how = "; attention output keeps its norm" if mask.renormalize else ""
    share = f"{len(mask.heads)} of {mask.scale.numel()} heads masked ({mask.fraction:.1%})"
    return lay_out_heads(figure, f"{model}<br><sub>{share}{how}</sub>", n_layers, n_heads)
