"""What a Plotly figure says, as plain values: over its template, with its short forms written out."""

import base64
import re
from html import unescape
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from interp.errors import CliffscopeError

if TYPE_CHECKING:
    import plotly.graph_objects as go

DPI = 100
"""Pixels of the page to an inch."""
POINT = 72 / DPI
"""Points in a pixel: matplotlib measures lines and texts in points."""

Json = dict[str, Any]
"""A part of a figure."""


def unknown(what: str) -> CliffscopeError:
    """The error for what cannot be drawn, which must not be a gap in a picture."""
    return CliffscopeError(f"static picture: cannot draw {what}; show the figure live, or draw it with other parts.")


def with_template(figure: "go.Figure") -> tuple[list[Json], Json]:
    """The traces that are to be seen and the layout, each over what the figure's template says."""
    own: Json = figure.layout.to_plotly_json()
    template: Json = own.pop("template", None) or {}
    common: Json = template.get("layout", {})
    axes = {name: own.pop(name) for name in list(own) if re.fullmatch(r"[xy]axis\d*", name)}
    layout = merged(common, own)
    for name in {"xaxis", "yaxis", *axes}:
        layout[name] = merged(common.get(name[:5], {}), axes.get(name, {}))
    traces = []
    for trace in figure.data:
        made: Json = trace.to_plotly_json()
        styles = template.get("data", {}).get(made["type"]) or [{}]
        if made.get("visible", True) is True:
            traces.append(merged(styles[0], made))
    return traces, layout


def merged(below: Json, above: Json) -> Json:
    """Two nested mappings in one; where both have a value, the upper one's."""
    both = dict(below)
    for key, value in above.items():
        nested = isinstance(value, dict) and isinstance(both.get(key), dict)
        both[key] = merged(both[key], value) if nested else value
    return both


def values(data: Any) -> list[Any]:
    """A row of numbers or names; Plotly stores some as base64."""
    if data is None:
        return []
    if isinstance(data, dict) and "bdata" in data:
        return list(numbers(data))
    return list(data)


def numbers(data: Any) -> NDArray[np.float64]:
    """Numbers in their shape, with NaN for what there is not."""
    if isinstance(data, dict) and "bdata" in data:
        flat = np.frombuffer(base64.b64decode(data["bdata"]), dtype=np.dtype(data["dtype"]))
        shape = data.get("shape")
        return flat.reshape([int(n) for n in str(shape).split(",")] if shape else -1).astype(np.float64)
    return np.asarray(data, dtype=np.float64)


def color(value: str | None, opacity: float = 1.0) -> Any:
    """A colour as matplotlib takes it.

    Raises:
        CliffscopeError: If it is of a form that is not known.
    """
    if value is None or value == "transparent":
        return "none"
    if found := re.fullmatch(r"rgba?\(([^)]*)\)", value.replace(" ", "")):
        red, green, blue, *alpha = (float(part) for part in found[1].split(","))
        return (red / 255, green / 255, blue / 255, (alpha[0] if alpha else 1.0) * opacity)
    from matplotlib.colors import is_color_like, to_rgba

    if not is_color_like(value):
        raise unknown(f"the colour {value!r}")
    red, green, blue, alpha_ = to_rgba(value)
    return (red, green, blue, alpha_ * opacity)


_TAGS = re.compile(r"</?(b|strong|i|em|u|s|sub|sup|span|a)(\s[^<>]*)?>", re.IGNORECASE)
_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)


def plain(text: Any) -> str:
    """A text without the few tags that Plotly reads, with its line breaks, and with entities as what they stand for."""
    return unescape(_TAGS.sub("", _BREAK.sub("\n", "" if text is None else str(text))))


_FORMAT = re.compile(r"([+]?)(,?)(?:\.(\d+))?(~?)([%fged]?)")


def formatted(value: float, format: str | None) -> str:
    """A number as an axis shows it; understands those of d3's formats that figures use: `.0%`, `.2f`, `+.1f`, `,`.

    Raises:
        CliffscopeError: If it is another format.
    """
    if not format:
        return f"{value:.10g}".replace("-", "−")
    found = _FORMAT.fullmatch(format)
    if found is None:
        raise unknown(f"the number format {format!r}")
    sign, comma, digits, _, kind = found.groups()
    precision = f".{digits}" if digits is not None and kind != "d" else ""
    return format_number(value, f"{sign}{comma}{precision}{kind or 'g'}")


def format_number(value: float, spec: str) -> str:
    """A number in a format of Python's, with the sign that typographers use."""
    return format(round(value) if spec.endswith("d") else value, spec).replace("-", "−")
