"""Texts of a picture: fonts, and the title."""

from typing import Any

from interp.display.palette import INK
from interp.display.static.reading import POINT, Json, color, plain

RC: Any = {
    # matplotlib brings these, so that a picture is the same on every machine, whatever its own settings are.
    "font.family": ["DejaVu Sans"],
    "font.sans-serif": ["DejaVu Sans"],
    "font.monospace": ["DejaVu Sans Mono"],
    "axes.unicode_minus": True,
    "path.simplify": True,
    "path.effects": [],
    "text.usetex": False,
    # A dollar sign is a dollar sign.
    "text.parse_math": False,
    "figure.autolayout": False,
    "figure.constrained_layout.use": False,
}

_SMALLER = 0.92
"""DejaVu is wider than the fonts of browsers."""


def font(style: Json | None, layout: Json, size: float | None = None) -> Json:
    """The keywords of a text: size, family and colour, from its own style over the figure's."""
    own, common = style or {}, layout.get("font", {})
    pixels = own.get("size") or size or common.get("size") or 12
    mono = "mono" in str(own.get("family", "")).lower()
    return {
        "fontsize": pixels * POINT * _SMALLER,
        "fontfamily": "DejaVu Sans Mono" if mono else "DejaVu Sans",
        "color": color(own.get("color") or common.get("color") or INK),
    }


def title_of(drawn: Any, layout: Json, size: tuple[int, int]) -> float:
    """Writes the title at the upper left, the lines after its first smaller; returns its height in pixels."""
    title = layout.get("title", {})
    words = title if isinstance(title, str) else title.get("text")
    if not words:
        return 4.0
    style = {} if isinstance(title, str) else title.get("font", {})
    first, *rest = plain(words).split("\n")
    top = 10.0
    for number, line in enumerate([first, *rest]):
        look = font(style if number == 0 else {}, layout, 16 if number == 0 else 12)
        where = (10 / size[0], 1 - top / size[1])
        text = drawn.text(*where, line, va="top", ha="left", **look)
        top += _fitted(drawn, text, line, size[0] - 20) + 4
    return top + 4


def _fitted(drawn: Any, text: Any, line: str, width: float) -> float:
    """Breaks a text that is too wide into lines; returns its height in pixels."""
    from textwrap import wrap

    renderer = drawn.canvas.get_renderer()
    scale = drawn.dpi / 100
    box = text.get_window_extent(renderer)
    if box.width / scale > width:
        text.set_text("\n".join(wrap(line, max(12, int(len(line) * width * scale / box.width)))))
        box = text.get_window_extent(renderer)
    return float(box.height / scale)
