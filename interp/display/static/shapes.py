"""Shapes: rectangles and lines, in the coordinates of an axis, of a panel, or of the area of all panels."""

from typing import Any

from interp.display.palette import INK
from interp.display.static.axes import Panels
from interp.display.static.reading import POINT, Json, color, merged, plain, unknown
from interp.display.static.texts import font
from interp.display.static.traces import dash


def place_in(panels: Panels, x_reference: str, y_reference: str) -> tuple[Any, Any]:
    """Where something is drawn, and the transformation from its coordinates; references as in Plotly: `x2 domain`."""
    from matplotlib.transforms import blended_transform_factory

    found, host = [], panels.paper
    for reference in (x_reference, y_reference):
        if reference == "paper":
            found.append(panels.paper.transAxes)
            continue
        name, _, domain = reference.partition(" ")
        host = panels.with_axis(name).ax
        found.append(host.transAxes if domain else host.transData)
    return host, blended_transform_factory(*found)


def draw_shapes(panels: Panels, layout: Json) -> None:
    """Draws all shapes of a figure. Raises `CliffscopeError` if one is neither a rectangle nor a line."""
    for own in layout.get("shapes") or ():
        shape = merged(layout.get("shapedefaults", {}), own)
        if shape.get("visible", True) is not True:
            continue
        host, transform = place_in(panels, shape.get("xref") or "x", shape.get("yref") or "y")
        _draw(host, transform, shape)
        if words := plain(shape.get("label", {}).get("text")):
            _label(host, transform, shape, words, layout)


def _draw(host: Any, transform: Any, shape: Json) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Rectangle

    line = shape.get("line", {})
    width = float(line.get("width", 2)) * POINT
    edge = {"linewidth": width, "linestyle": dash(line.get("dash", "solid"))}
    hue = color(line.get("color") or INK, float(shape.get("opacity", 1)))
    common = {"transform": transform, "zorder": 0.5 if shape.get("layer") == "below" else 3, "clip_on": False}
    x0, x1, y0, y1 = (shape[name] for name in ("x0", "x1", "y0", "y1"))
    if shape.get("type") == "line":
        host.add_line(Line2D([x0, x1], [y0, y1], color=hue, **edge, **common))
    elif shape.get("type", "rect") == "rect":
        face = color(shape.get("fillcolor"), float(shape.get("opacity", 1)))
        outline = hue if width else "none"
        host.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, facecolor=face, edgecolor=outline, **edge, **common))
    else:
        raise unknown(f"a shape of the type {shape['type']!r}")


def _label(host: Any, transform: Any, shape: Json, words: str, layout: Json) -> None:
    where = shape["label"].get("textposition") or ("middle" if shape.get("type") == "line" else "middle center")
    low_x, high_x = sorted((shape["x0"], shape["x1"]))
    low_y, high_y = sorted((shape["y0"], shape["y1"]))
    across = {"left": low_x, "start": shape["x0"], "right": high_x, "end": shape["x1"]}
    words_in = where.split(" ")
    horizontal = next((word for word in words_in if word in across), "center")
    vertical = next((word for word in words_in if word in ("top", "bottom")), "center")
    x = across.get(horizontal, (low_x + high_x) / 2)
    y = {"top": high_y, "bottom": low_y, "center": (low_y + high_y) / 2}[vertical]
    align = {"left": "left", "start": "left", "right": "right", "end": "right", "center": "center"}[horizontal]
    look = font(shape["label"].get("font"), layout)
    host.text(x, y, f" {words} ", transform=transform, ha=align, va=vertical, zorder=3.5, **look)
