"""The legend: a row or more below the panels."""

from collections.abc import Iterator, Sequence
from typing import Any

from interp.display.static.reading import DPI, Json, color, plain
from interp.display.static.texts import font
from interp.display.static.traces import hue, line_style, marker_style, modes


def legend_of(drawn: Any, traces: Sequence[Json], layout: Json, size: tuple[int, int]) -> float:
    """Draws the legend at the lower left; returns its height in pixels of the page, 0 without one."""
    entries = list(_entries(traces, layout))
    shown = layout.get("showlegend")
    if shown is False or not entries or (shown is None and len(entries) < 2):
        return 0.0
    look = font(layout.get("legend", {}).get("font"), layout, 12)
    handles, labels = [handle for handle, _ in entries], [label for _, label in entries]
    for columns in range(len(entries), 0, -1):
        legend = drawn.legend(
            handles,
            labels,
            loc="lower left",
            bbox_to_anchor=(8 / size[0], 6 / size[1]),
            bbox_transform=drawn.transFigure,
            borderaxespad=0,
            borderpad=0,
            frameon=False,
            ncols=columns,
            handlelength=2.4,
            columnspacing=1.4,
            labelcolor=look["color"],
            prop={"size": look["fontsize"], "family": "DejaVu Sans"},
        )
        box = legend.get_window_extent(drawn.canvas.get_renderer())
        scale = drawn.dpi / DPI
        if box.width / scale <= size[0] - 16 or columns == 1:
            return float(box.height / scale) + 14
        legend.remove()
    raise AssertionError("a legend of one column is always kept")


def _entries(traces: Sequence[Json], layout: Json) -> Iterator[tuple[Any, str]]:
    for trace in sorted(traces, key=lambda trace: trace.get("legendrank", 1000)):
        if trace.get("name") and trace.get("showlegend", True) and trace["type"] != "heatmap":
            yield _handle({**trace, "_color": hue(trace, traces, layout)}), plain(trace["name"])


def _handle(trace: Json) -> Any:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    if trace["type"] == "bar":
        marker = trace.get("marker", {}).get("color")
        return Patch(facecolor=color(marker if isinstance(marker, str) else trace["_color"]), edgecolor="none")
    if trace.get("fill", "none") != "none" and not trace.get("line", {}).get("width", 2):
        return Patch(facecolor=color(trace.get("fillcolor") or trace["_color"]), edgecolor="none")
    shown = modes(trace)
    line = line_style(trace) if "lines" in shown else {"linestyle": "none"}
    if "markers" not in shown:
        return Line2D([], [], **line)
    marker = marker_style(trace, 1)
    face = marker.get("c", marker.get("edgecolors"))
    face = face[0] if isinstance(face, list) else face
    open_ = marker.get("facecolors") == "none"
    size = marker["s"] ** 0.5
    look: Json = {"marker": marker["marker"], "markersize": float(size if getattr(size, "ndim", 0) == 0 else size[0])}
    edges: Json = {"markerfacecolor": "none" if open_ else face, "markeredgecolor": face}
    return Line2D([], [], **line, **look, **edges, markeredgewidth=1.2 if open_ or marker["marker"] in "x+|_" else 0)
