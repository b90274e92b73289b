"""Drawing a whole figure: the layout over its template, the panels with their traces, and room for all the texts."""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.display.static.axes import Panels
from interp.display.static.legend import legend_of
from interp.display.static.notes import annotations
from interp.display.static.png_file import encode
from interp.display.static.reading import DPI, Json, unknown, with_template
from interp.display.static.shapes import draw_shapes
from interp.display.static.texts import RC, title_of
from interp.display.static.traces import draw_trace

if TYPE_CHECKING:
    import plotly.graph_objects as go

WIDTH = 860
"""Pixels of a figure that says none."""
HEIGHT = 450
SCALE = 1.6
"""Pixels of the file for one of the page: sharp enough on dense screens, and small files."""
_FREE = 6
"""Pixels that stay free around everything."""


def png(figure: "go.Figure", *, width: int | None = None, scale: float = SCALE) -> bytes:
    """The figure as a PNG without background.

    Args:
        figure: Not changed.
        width: In pixels of the page; the figure's own, or 860.
        scale: Pixels of the file for one of the page.

    Raises:
        CliffscopeError: If a trace, a shape, an axis or a number format is of a kind that is not known here.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    traces, layout = with_template(figure)
    own, height = size_of(figure)
    size = (width or own, height)
    with matplotlib.rc_context(RC), warnings.catch_warnings():
        # A character that no font has is drawn as a box, and that is what it should be.
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .*missing from")
        drawn = Figure(figsize=(size[0] / DPI, size[1] / DPI), dpi=DPI * scale, facecolor="none")
        canvas = FigureCanvasAgg(drawn)
        _draw(drawn, traces, layout, size)
        canvas.draw()
        return encode(np.asarray(canvas.buffer_rgba()))


def size_of(figure: "go.Figure") -> tuple[int, int]:
    """Width and height of the static picture, in pixels of the page."""
    return int(figure.layout.width or WIDTH), int(figure.layout.height or HEIGHT)


def _draw(drawn: Any, traces: list[Json], layout: Json, size: tuple[int, int]) -> None:
    if layout.get("images"):
        raise unknown("an image")
    panels = Panels(drawn, layout, traces, size)
    for trace in traces:
        draw_trace(panels, trace, traces, layout)
    panels.finish()
    draw_shapes(panels, layout)
    notes = annotations(panels, layout)
    room = (title_of(drawn, layout, size), legend_of(drawn, traces, layout, size))
    margins = {"left": 60.0, "right": 30.0, "top": room[0] + 20.0, "bottom": room[1] + 50.0}
    renderer = drawn.canvas.get_renderer()
    # Twice, as how much room ticks need depends a little on the size of the panels.
    for number in range(3):
        width = size[0] - margins["left"] - margins["right"]
        height = size[1] - margins["top"] - margins["bottom"]
        panels.place(margins["left"], margins["bottom"], max(20.0, width), max(20.0, height))
        panels.settle(renderer)
        if number < 2:
            _grow(margins, _extents(panels, notes, renderer), room, size)


def _grow(
    margins: dict[str, float],
    boxes: Sequence[tuple[float, float, float, float]],
    room: tuple[float, float],
    size: tuple[int, int],
) -> None:
    """Changes margins by what reaches beyond the free area, or leaves some of it unused."""
    if not boxes:
        return
    lefts, lows, rights, tops = zip(*boxes, strict=True)
    margins["left"] += _FREE - min(lefts)
    margins["right"] += max(rights) - (size[0] - _FREE)
    margins["bottom"] += room[1] + _FREE - min(lows)
    margins["top"] += max(tops) - (size[1] - _FREE - room[0])


def _extents(panels: Panels, notes: Sequence[Any], renderer: Any) -> list[tuple[float, float, float, float]]:
    """Left, lower, right and upper ends of all panels with their texts, in pixels of the page."""
    boxes = [panel.ax.get_tightbbox(renderer, for_layout_only=False) for panel in panels]
    boxes += [panel.bar[0].get_tightbbox(renderer) for panel in panels if panel.bar is not None]
    boxes += [note.get_window_extent(renderer) for note in notes]
    scale = panels.drawn.dpi / DPI
    return [(box.x0 / scale, box.y0 / scale, box.x1 / scale, box.y1 / scale) for box in boxes if box is not None]
