"""Annotations: texts at a point, with an arrow or without."""

from typing import Any

import numpy as np

from interp.display.palette import INK
from interp.display.static.axes import Panels
from interp.display.static.reading import POINT, Json, color, merged, plain
from interp.display.static.shapes import place_in
from interp.display.static.texts import font

_THIRD = 1 / 3


def annotations(panels: Panels, layout: Json) -> list[Any]:
    """Draws all annotations of a figure; returns the texts, for which room must be made."""
    made = []
    for own in layout.get("annotations") or ():
        note = merged(layout.get("annotationdefaults", {}), own)
        if note.get("visible", True) is True and plain(note.get("text")):
            made.append(_draw(panels, note, layout))
    return made


def _draw(panels: Panels, note: Json, layout: Json) -> Any:
    references = note.get("xref") or "x", note.get("yref") or "y"
    host, transform = place_in(panels, *references)
    at = tuple(_place(panels, reference, note[which]) for which, reference in zip("xy", references, strict=True))
    arrow = note.get("showarrow", True)
    shift = [float(note.get("xshift", 0)), float(note.get("yshift", 0))]
    tail = [float(note.get("ax", -10)), -float(note.get("ay", -30))] if arrow else [0.0, 0.0]
    horizontal = _anchor(note.get("xanchor", "auto"), references[0], at[0], arrow, ("left", "center", "right"))
    vertical = _anchor(note.get("yanchor", "auto"), references[1], at[1], arrow, ("bottom", "middle", "top"))
    look = font(note.get("font"), layout)
    background = note.get("bgcolor")
    text = host.annotate(
        plain(note["text"]),
        xy=at,
        xycoords=transform,
        xytext=tuple((a + b) * POINT for a, b in zip(shift, tail, strict=True)),
        textcoords="offset points",
        ha=horizontal,
        va="center" if vertical == "middle" else vertical,
        ma={"left": "left", "right": "right"}.get(note.get("align", "center"), "center"),
        rotation=-float(note.get("textangle", 0)),
        rotation_mode="default",
        annotation_clip=False,
        zorder=4,
        bbox={"facecolor": color(background), "edgecolor": "none", "pad": 1} if background else None,
        arrowprops={"arrowstyle": "->", "color": color(note.get("arrowcolor", INK)), "lw": 0.9} if arrow else None,
        **look,
    )
    return text


def _place(panels: Panels, reference: str, value: Any) -> float:
    """A coordinate: the place of a category, and of a logarithm what it is of."""
    name, _, domain = reference.partition(" ")
    if name == "paper" or domain:
        return float(value)
    panel = panels.with_axis(name)
    if isinstance(value, str):
        return float(panel.numbers([value], name[0])[0])
    return float(np.power(10.0, value)) if panel.axis(name[0]).get("type") == "log" else float(value)


def _anchor(said: str, reference: str, at: float, arrow: bool, names: tuple[str, str, str]) -> str:
    """Which part of the text is at the point; on the paper the nearest side's, if nothing is said."""
    if said != "auto":
        return said
    if arrow or not (reference == "paper" or reference.endswith("domain")):
        return names[1]
    return names[0] if at < _THIRD else names[2] if at > 2 * _THIRD else names[1]
