"""One visual language for every figure: what is drawn has the same colour everywhere, also for the colour-blind.

The hues are Okabe and Ito's; each differs in lightness too, and each has a contrast of at least 3 to 1 with a white
page and with a dark one. So has the ink, and more: no grey reaches 4.5 to 1 on both, and this one is as near to it as
a grey can be.
"""

from collections.abc import Sequence
from itertools import pairwise

Scale = tuple[tuple[float, str], ...]
"""A colour scale: places from 0 to 1 with their colours, as Plotly takes it."""

COLORS = {"complied": "#D55E00", "refused": "#0072B2", "benign": "#009E73"}
"""Rollouts by outcome: answered a harmful prompt, refused one, answered a benign one."""

NAMES = {"complied": "harmful, complied", "refused": "harmful, refused", "benign": "benign"}
"""What a legend calls them."""

INK = "#7E7E7E"
"""Lines and labels that must show on light and on dark: 4.1 to 1 on both."""

CONTROL = INK
"""What is drawn at random, or unchanged: the control."""

NEUTRAL = "#F5F5F5"
"""The middle of a diverging scale."""

DIVERGING: Scale = ((0.0, COLORS["refused"]), (0.5, NEUTRAL), (1.0, COLORS["complied"]))
"""A colour scale around 0: below it towards refusing, above it towards answering."""

SCORES: Scale = ((0.0, COLORS["complied"]), (0.5, NEUTRAL), (1.0, COLORS["refused"]))
"""The same scale for a refusal score or an area under a curve: 0 answers, 1 refuses."""

SEGMENT_COLORS = {
    "system": INK,
    "instruction": "#E69F00",
    "template": INK,
    "thinking": "#56B4E9",
    "close": "#CC79A7",
    "response": INK,
}
"""Tokens by segment; other hues than those of outcomes, from the same set."""


def band(color: str, opacity: float = 0.2) -> str:
    """A colour as a translucent fill, for an interval."""
    red, green, blue = _channels(color)
    return f"rgba({red},{green},{blue},{opacity})"


def at(scale: Scale, value: float) -> str:
    """The colour of a value in [0, 1]; values beyond take the colour of the nearer end."""
    value = min(max(value, 0.0), 1.0)
    for (low, first), (high, last) in pairwise(scale):
        if value <= high:
            share = (value - low) / (high - low)
            pairs = zip(_channels(first), _channels(last), strict=True)
            return "#" + "".join(f"{round(a + share * (b - a)):02X}" for a, b in pairs)
    return scale[-1][1]


def legible(background: str) -> str:
    """Black or white, whichever shows better: at least 4.5 to 1 on any colour."""
    return max(("#000000", "#FFFFFF"), key=lambda ink: contrast(ink, background))


def contrast(first: str, second: str) -> float:
    """The contrast ratio of two colours after WCAG 2, from 1 to 21."""
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def luminance(color: str) -> float:
    """The relative luminance of a colour after WCAG 2, from 0 to 1."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in _channels(color))]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _channels(color: str) -> Sequence[int]:
    return [int(color[i : i + 2], 16) for i in (1, 3, 5)]
