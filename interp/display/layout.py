"""The look of every Plotly figure: no background, ink that shows on light and dark, faint grids, a legend below."""

from functools import cache
from typing import TYPE_CHECKING, Any

from interp.display.palette import COLORS, INK, SEGMENT_COLORS, Scale, band

if TYPE_CHECKING:
    import plotly.graph_objects as go

CLEAR = "rgba(0,0,0,0)"
"""No colour at all."""
FONT = "system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, sans-serif"
MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, monospace"
HEIGHT = 420
LEGEND_DROP = 62
"""Pixels from the panels to the legend: the ticks and the title of an axis lie between."""


BUTTONS = {
    "bgcolor": CLEAR,
    "bordercolor": INK,
    "font": {"color": INK, "size": 12},
    "showactive": False,
}
"""The look of buttons that change a figure; Plotly would fill the active one with white."""


_COLOR_BAR = {
    "outlinewidth": 0,
    "thickness": 14,
    "tickcolor": INK,
    "ticklen": 3,
    "title": {"font": {"size": 13}},
}

PANEL_TITLE = {"color": INK, "size": 13}
"""The font of a panel's title."""


@cache
def template() -> "go.layout.Template":
    """What holds for every figure; `lay_out` applies it."""
    import plotly.graph_objects as go

    axis = {
        "automargin": True,
        "gridcolor": band(INK, 0.22),
        "linecolor": band(INK, 0.7),
        "showline": True,
        "tickcolor": band(INK, 0.7),
        "ticks": "outside",
        "ticklen": 4,
        "title": {"standoff": 8, "font": {"size": 13}},
        "zeroline": False,
        "zerolinecolor": band(INK, 0.7),
    }
    return go.layout.Template(
        layout={
            "annotationdefaults": {"font": {"color": INK}, "arrowcolor": INK, "arrowwidth": 1},
            "coloraxis": {"colorbar": {"outlinewidth": 0}},
            "colorway": [*COLORS.values(), *(SEGMENT_COLORS[name] for name in ("close", "thinking", "instruction"))],
            "font": {"color": INK, "family": FONT, "size": 13},
            "hoverlabel": {"font": {"family": FONT}},
            "hovermode": "closest",
            "legend": {"bgcolor": CLEAR, "orientation": "h", "x": 0, "xanchor": "left", "yanchor": "top"},
            "modebar": {"bgcolor": CLEAR, "color": INK, "activecolor": COLORS["refused"]},
            "paper_bgcolor": CLEAR,
            "plot_bgcolor": CLEAR,
            "title": {
                "font": {"size": 16},
                "x": 0,
                "xanchor": "left",
                "xref": "paper",
                "y": 1,
                "yanchor": "top",
                "yref": "container",
                "pad": {"t": 12},
            },
            "xaxis": axis,
            "yaxis": axis,
        },
        data={"heatmap": [{"colorbar": _COLOR_BAR}]},
    )


def lay_out(
    figure: "go.Figure",
    title: str = "",
    *,
    height: int = HEIGHT,
    top: int | None = None,
    bottom: int = 60,
    legend: bool = True,
    drop: int = LEGEND_DROP,
) -> "go.Figure":
    """Gives a figure the common look; returns it. The width stays free, so that it fills its page.

    Args:
        figure: Changed in place.
        title: Escaped; a second line after `<br>`.
        height: Of the whole, in pixels.
        top: The margin above the panels, in pixels: by default room for the title, or none without one.
        bottom: The margin below, in pixels; more where the legend needs it.
        legend: Whether there is one, below the panels.
        drop: Pixels from the panels to the legend.
    """
    if top is None:
        top = 16 + 28 * bool(title) + 22 * title.count("<br>")
    if legend:
        # Plotly makes the margin larger where a legend of several rows needs it.
        bottom = max(bottom, drop + 30)
    figure.update_layout(
        template=template(),
        height=height,
        margin={"l": 60, "r": 20, "t": top, "b": bottom},
        showlegend=legend,
        # In parts of the panels' height, which is all that Plotly can express.
        legend={"y": -drop / (height - top - bottom)},
    )
    if title:
        figure.update_layout(title={"text": title})
    # The titles of panels, which Plotly makes as large as that of the figure.
    figure.update_annotations(font=PANEL_TITLE, selector={"font": {"size": 16}})
    return figure


def lay_out_heads(figure: "go.Figure", title: str, n_layers: int, n_heads: int) -> "go.Figure":
    """The look of a grid of layers and heads."""
    every = 1 if max(n_layers, n_heads) <= 32 else 4
    figure.update_xaxes(title_text="head", dtick=every, showgrid=False, constrain="domain")
    figure.update_yaxes(title_text="layer", dtick=every, showgrid=False)
    return lay_out(figure, title, height=min(max(340, 150 + 26 * n_layers), 900), legend=False)


def colorscale(scale: Scale) -> list[list[Any]]:
    """A scale of the palette as Plotly stores it."""
    return [list(stop) for stop in scale]
