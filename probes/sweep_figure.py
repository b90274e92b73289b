"""The heatmap of a probe sweep, layer × position, as a file that needs nothing else."""

import os
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from interp.display.layout import BUTTONS, colorscale, lay_out
from interp.display.palette import SCORES
from interp.display.text import caption, lines
from interp.errors import CliffscopeError
from interp.files import write_text

if TYPE_CHECKING:
    import plotly.graph_objects as go

TITLES = {
    "real": "held-out AUROC",
    "shuffled": "AUROC of the shuffled-label control",
    "held_out_category": "AUROC on held-out categories",
}


def sweep_figure(table: pd.DataFrame) -> "go.Figure":
    """The AUROC of each cell, one control at a time (buttons); hovering shows the interval and the strength.

    Args:
        table: `ProbeSweep.table`.

    Raises:
        CliffscopeError: If the table is empty.
    """
    import plotly.graph_objects as go

    if table.empty:
        raise CliffscopeError("sweep: the table is empty; there is nothing to draw.")
    positions = list(dict.fromkeys(table["position"]))
    layers = sorted(set(table["layer"]))
    controls = [name for name in TITLES if name in set(table["control"])]
    figure = go.Figure()
    for control in controls:
        rows = table[table["control"] == control].set_index(["layer", "position"])
        grid = rows.reindex(pd.MultiIndex.from_product([layers, positions]))
        shape = (len(layers), len(positions))
        columns = ["auroc_low", "auroc_high", "accuracy", "ece", "C", "n_train", "n_test"]
        figure.add_heatmap(
            z=grid["auroc"].to_numpy().reshape(shape),
            x=[caption(position) for position in positions],
            y=layers,
            customdata=np.stack([grid[name].to_numpy(float).reshape(shape) for name in columns], -1),
            zmin=0,
            zmax=1,
            zmid=0.5,
            colorscale=colorscale(SCORES),
            colorbar={"title": {"text": "AUROC", "side": "right"}},
            xgap=1,
            ygap=1,
            visible=control == controls[0],
            hovertemplate=(
                "layer %{y}, %{x}<br>AUROC %{z:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]"
                "<br>accuracy %{customdata[2]:.3f}, ECE %{customdata[3]:.3f}, C %{customdata[4]:g}"
                "<br>%{customdata[5]:.0f} training, %{customdata[6]:.0f} held out<extra></extra>"
            ),
        )
    buttons = [
        {
            "label": control.replace("_", " "),
            "method": "update",
            "args": [
                {"visible": [other == control for other in controls]},
                {"title.text": f"Probe sweep: {TITLES[control]}"},
            ],
        }
        for control in controls
    ]
    figure.update_xaxes(title_text="position", type="category", showgrid=False)
    figure.update_yaxes(title_text="layer", dtick=max(1, len(layers) // 16), showgrid=False)
    told = "<br>".join(lines(null["sentence"]) for null in table.attrs.get("nulls") or ())
    bottom = 76 + 20 * bool(told) + 16 * told.count("<br>")
    height = min(max(360, 200 + 26 * len(layers)), 900) + bottom - 76
    lay_out(figure, f"Probe sweep: {TITLES[controls[0]]}", height=height, top=90, bottom=bottom, legend=False)
    # Between the title and the cells, from the left: on a phone too.
    place = {"x": 0, "xanchor": "left", "y": 1, "yanchor": "bottom", "pad": {"b": 8}}
    figure.update_layout(
        updatemenus=[{"type": "buttons", "direction": "right", "buttons": buttons, **BUTTONS, **place}]
    )
    if told:
        # Below the axis, where no cell is hidden.
        below = {"xref": "paper", "yref": "paper", "x": 0, "y": 0, "xanchor": "left", "yanchor": "top", "yshift": -64}
        figure.add_annotation(text=told, showarrow=False, align="left", font={"size": 12}, **below)
    return figure


def write_sweep_html(table: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Writes the heatmap as self-contained HTML; the same table gives the same bytes.

    Raises:
        CliffscopeError: If the table is empty or the file cannot be written.
    """
    # A fixed element id, or plotly would draw a random one for every file.
    text = sweep_figure(table).to_html(include_plotlyjs=True, full_html=True, div_id="probe-sweep")
    write_text(path, text)
