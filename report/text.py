"""Text from prompts and models, made harmless: nothing in it is markup, and nothing in it is invisible.

One door for everything that goes into the page's data: `shown` for a text, `clean` for a whole value.
"""

import json
import re
from collections.abc import Mapping
from html import escape
from typing import Any

_HIDDEN = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters, but for tab and line feed
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # what turns the direction of text
    "\u200b\u2028\u2029\u2060-\u2064\u206a-\u206f\ufeff\ufff9-\ufffb"  # what has no width
    "\ud800-\udfff"  # halves of a pair, which are no characters
    "\U000e0000-\U000e007f"  # tags
    "]"
)

_IN_SCRIPT = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}


def shown(text: str) -> str:
    """The text with every character that would act without being seen written out, as ⟦U+202E⟧."""
    return _HIDDEN.sub(lambda found: f"⟦U+{ord(found[0]):04X}⟧", text)


def clean(value: Any) -> Any:
    """A value that JSON holds, with `shown` applied to every text in it, and what is not finite as `None`."""
    if isinstance(value, str):
        return shown(value)
    if isinstance(value, Mapping):
        return {shown(str(key)): clean(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [clean(entry) for entry in value]
    if hasattr(value, "tolist"):  # a NumPy scalar or array
        return clean(value.tolist())
    if isinstance(value, float) and not abs(value) < float("inf"):
        return None
    return value


def data_block(value: Any) -> str:
    """A value as JSON that can stand inside a script element: no character in it can end the element."""
    text = json.dumps(clean(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.translate(_IN_SCRIPT)


def plotly_text(text: str) -> str:
    """A text for a figure: Plotly reads some HTML in labels, and `$…$` as a formula."""
    return escape(shown(text)).replace("$", "&#36;").replace("\n", "⏎").replace("\t", "⇥")
