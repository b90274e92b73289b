"""One visual language for every figure: what is drawn has the same colour everywhere, also for the colour-blind.

The hues are Okabe and Ito's; each differs in lightness too, and none depends on a light or dark background.
"""

COLORS = {"complied": "#D55E00", "refused": "#0072B2", "benign": "#009E73"}
"""Rollouts by outcome: answered a harmful prompt, refused one, answered a benign one."""

NAMES = {"complied": "harmful, complied", "refused": "harmful, refused", "benign": "benign"}
"""What a legend calls them."""

INK = "#888888"
"""Lines and labels that must show on light and on dark."""

CONTROL = "#888888"
"""What is drawn at random, or unchanged: the control."""

DIVERGING = ((0.0, COLORS["refused"]), (0.5, "#F5F5F5"), (1.0, COLORS["complied"]))
"""A colour scale around 0: below it towards refusing, above it towards answering."""


def band(color: str, opacity: float = 0.2) -> str:
    """A colour as a translucent fill, for an interval."""
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"
