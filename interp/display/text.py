"""Texts of models and prompts as they may be shown: nothing in them is markup, and nothing is invisible."""

from collections.abc import Iterable
from html import escape
from textwrap import wrap

_VISIBLE = str.maketrans({"\n": "⏎", "\r": "␍", "\t": "⇥", " ": "␣"})


def visible(token: str) -> str:
    r"""A token's text in which white space shows, and so does what would change how the rest is read.

    A right-to-left override becomes `\\u202e`; a token without text, whose character comes with a later one, `⋯`.
    """
    if not token:
        return "⋯"
    return printable(token.translate(_VISIBLE))


def printable(text: str) -> str:
    """A text on one line in which whatever cannot be printed is spelled out."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def label(text: str) -> str:
    """A token's text for a figure: visible, and nothing that Plotly or a browser reads as markup."""
    return escape(visible(text))


def caption(text: object) -> str:
    """A model's name, an id or a category for a figure: what cannot be printed spelled out, and no markup."""
    return escape(printable(str(text)))


def shortened(text: str, width: int = 60) -> str:
    """A text of at most `width` characters, its middle left out where it is longer."""
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return f"{text[: width - 1 - tail]}…{text[-tail:]}"


def lines(text: str, width: int = 96) -> str:
    """A text for a figure, which breaks no lines by itself: broken, and nothing in it markup."""
    return "<br>".join(escape(line) for line in wrap(text, width))


_BARS = "▁▂▃▄▅▆▇█"


def bars(scores: Iterable[float], most: int = 48) -> str:
    """Scores in [0, 1] as a line of bars of eight heights; of more than `most`, means of neighbours."""
    found = list(scores)
    n = min(most, len(found))
    groups = [found[i * len(found) // n : (i + 1) * len(found) // n] for i in range(n)]
    return "".join(_BARS[min(7, int(sum(group) / len(group) * 8))] for group in groups)
