"""The heatmap of a probe sweep, layer × position, as a file that needs nothing else."""

import os
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from interp.display.palette import INK
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
            x=positions,
            y=layers,
            customdata=np.stack([grid[name].to_numpy(float).reshape(shape) for name in columns], -1),
            zmin=0,
            zmax=1,
            zmid=0.5,
            colorscale="RdBu",
            colorbar={"title": "AUROC"},
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
    figure.update_layout(
        title={"text": f"Probe sweep: {TITLES[controls[0]]}"},
        xaxis={"title": "position", "type": "category"},
        yaxis={"title": "layer", "dtick": max(1, len(layers) // 16)},
        updatemenus=[
            {"type": "buttons", "direction": "right", "buttons": buttons, "x": 1, "xanchor": "right", "y": 1.12}
        ],
        template="plotly_white",
    )
    if nulls := table.attrs.get("nulls"):
        words = "<br>".join(null["sentence"] for null in nulls)
        # Below the axis, where no cell is hidden.
        place = {"xref": "paper", "yref": "paper", "x": 0, "y": -0.16, "xanchor": "left", "yanchor": "top"}
        figure.add_annotation(text=words, showarrow=False, font={"color": INK, "size": 12}, **place)
        figure.update_layout(margin={"b": 120})
    return figure


def write_sweep_html(table: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Writes the heatmap as self-contained HTML; the same table gives the same bytes.

    Raises:
        CliffscopeError: If the table is empty or the file cannot be written.
    """
    # A fixed element id, or plotly would draw a random one for every file.
    text = sweep_figure(table).to_html(include_plotlyjs=True, full_html=True, div_id="probe-sweep")
    write_text(path, text)
