"""Heatmaps: a cell for each value, with gaps between, and a colour bar beside the panel."""

from typing import Any

import numpy as np

from interp.display.palette import INK
from interp.display.static.axes import Panel, Panels
from interp.display.static.reading import Json, color, formatted, numbers, plain
from interp.display.static.scales import color_map, limits
from interp.display.static.texts import font


def draw_heatmap(panels: Panels, panel: Panel, trace: Json, layout: Json) -> None:
    """Draws the cells that have a value."""
    from matplotlib.collections import PolyCollection

    z = numbers(trace["z"])
    rows, cols = z.shape
    x = panel.numbers(trace["x"], "x") if trace.get("x") is not None else np.arange(cols, dtype=float)
    y = panel.numbers(trace["y"], "y") if trace.get("y") is not None else np.arange(rows, dtype=float)
    across, high = _edges(x, cols), _edges(y, rows)
    (x0, x1), (y0, y1) = panel.domain
    # Gaps between cells are given in pixels of the page, and the panel's size is nearly known.
    gap_x = float(trace.get("xgap", 0)) / 2 * abs(across[-1] - across[0]) / ((x1 - x0) * panels.size[0] * 0.85)
    gap_y = float(trace.get("ygap", 0)) / 2 * abs(high[-1] - high[0]) / ((y1 - y0) * panels.size[1] * 0.7)
    cells, colors = [], []
    scale, norm = color_map(trace.get("colorscale")), limits(trace, z, "z")
    for row, col in np.argwhere(np.isfinite(z)):
        left, right = across[col] + gap_x, across[col + 1] - gap_x
        low, top = high[row] + gap_y, high[row + 1] - gap_y
        cells.append([(left, low), (right, low), (right, top), (left, top)])
        colors.append(scale(float(norm(z[row, col]))))
    panel.ax.add_collection(PolyCollection(cells, facecolors=colors, edgecolors="none", zorder=0.8))
    panel.ax.margins(0)
    panel.ax.update_datalim([(across[0], high[0]), (across[-1], high[-1])])
    panel.ax.autoscale_view()
    if trace.get("showscale", True):
        _color_bar(panels, panel, trace, scale, norm, layout)


def _edges(places: np.ndarray, n: int) -> np.ndarray:
    """The borders of cells, halfway between their middles."""
    if len(places) == n + 1:
        return places
    if n == 1:
        return np.array([places[0] - 0.5, places[0] + 0.5])
    between = (places[:-1] + places[1:]) / 2
    return np.concatenate([[2 * places[0] - between[0]], between, [2 * places[-1] - between[-1]]])


def _color_bar(panels: Panels, panel: Panel, trace: Json, scale: Any, norm: Any, layout: Json) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    said = trace.get("colorbar", {})
    ax = panels.drawn.add_axes((0, 0, 0.01, 0.01))
    bar = panels.drawn.colorbar(ScalarMappable(norm, scale), cax=ax)
    bar.outline.set_visible(False)
    bar.locator = MaxNLocator(nbins=6)
    bar.formatter = FuncFormatter(lambda value, _: formatted(value, said.get("tickformat")))
    bar.update_ticks()
    look = font(said.get("tickfont"), layout, 12)
    ax.tick_params(labelsize=look["fontsize"], labelcolor=look["color"], color=color(INK), width=0.8, length=2.5, pad=3)
    title = said.get("title") or {}
    if words := plain(title if isinstance(title, str) else title.get("text")):
        ax.yaxis.set_label_text(words, **font({} if isinstance(title, str) else title.get("font"), layout, 12))
        ax.yaxis.label.set_rotation(270)
        ax.yaxis.label.set_va("bottom")
    panel.bar = (ax, 12.0, float(said.get("thickness", 16)))
