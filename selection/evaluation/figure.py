"""The picture of a comparison: harmful prompts answered against harmless ones refused; down and left is better."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from interp.display.layout import lay_out
from interp.display.palette import COLORS, CONTROL
from interp.display.text import caption
from selection.evaluation.comparison import Comparison
from selection.evaluation.outcomes import Rate
from selection.evaluation.tables import category_rows, comparison_rows, difference_rows, sentences

if TYPE_CHECKING:
    import plotly.graph_objects as go

_PANELS = (("over_refusal", "benign prompts refused (over-refusal)"), ("trap_refusal", "traps refused"))
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "star", "cross", "triangle-down", "hexagon", "x", "pentagon")
_LINE = 0.045
"""Height of a line of text on the axis of the ASR."""
_HUES = (CONTROL, COLORS["refused"], COLORS["complied"], COLORS["benign"])
"""Of the base, and then in turn; what tells two points apart without colour is symbol and label."""


def comparison_figure(comparison: Comparison) -> "go.Figure":
    """One point an evaluation with bars for both intervals; a second panel for traps, where there are any."""
    from plotly.subplots import make_subplots

    panels = [(title, points) for name, title in _PANELS if (points := _points(comparison, name))]
    figure = make_subplots(rows=1, cols=max(1, len(panels)), shared_yaxes=True, horizontal_spacing=0.06)
    for col, (title, points) in enumerate(panels, start=1):
        for point in points:
            _add_point(figure, col, point)
        _add_labels(figure, col, points)
        highest = max(point.across.interval.high for point in points)
        figure.update_xaxes(title_text=title, range=[-0.04 * highest, 1.06 * highest], col=col)
    figure.update_xaxes(tickformat=".0%", zeroline=False)
    figure.update_yaxes(tickformat=".0%", range=[-0.03, 1.08], zeroline=False)
    figure.update_yaxes(title_text="harmful prompts answered (ASR)", col=1)
    return lay_out(figure, "down and left is better", height=480)


def comparison_page(comparison: Comparison) -> str:
    """Tables and figure as one self-contained HTML page; equal comparisons give equal pages."""
    from interp.display.page import page

    tables = [comparison_rows(comparison), difference_rows(comparison), category_rows(comparison)]
    return page(
        f"Comparison with {comparison.labels[0]}",
        "\n".join(sentences(comparison)),
        {"comparison": comparison_figure(comparison)},
        tables=[[[cell.replace(", ", ",\u00a0") for cell in row] for row in rows] for rows in tables if len(rows) > 1],
    )


@dataclass(frozen=True)
class _Point:
    """One evaluation in one panel: its place among all, and its two rates."""

    index: int
    label: str
    across: Rate
    asr: Rate


def _points(comparison: Comparison, across: str) -> list[_Point]:
    """The evaluations that have both rates. Plotly reads some markup in texts, so labels are escaped."""
    points = []
    for index, label in enumerate(comparison.labels):
        x, y = comparison.rate(index, across), comparison.rate(index, "asr")
        if x is not None and y is not None and x.n and y.n:
            points.append(_Point(index, caption(label), x, y))
    return points


def _add_point(figure: "go.Figure", col: int, point: _Point) -> None:
    import plotly.graph_objects as go

    index, x, y = point.index, point.across, point.asr
    hue = _HUES[0] if index == 0 else _HUES[1 + (index - 1) % (len(_HUES) - 1)]
    bars = {"color": hue, "thickness": 1.5, "width": 4}
    figure.add_trace(
        go.Scatter(
            x=[x.value],
            y=[y.value],
            error_x=_bars(x) | bars,
            error_y=_bars(y) | bars,
            mode="markers",
            # Smaller ones on top, so that points at the same place are all seen.
            marker={"color": hue, "symbol": _SYMBOLS[index % len(_SYMBOLS)], "size": max(8, 16 - 2 * index)},
            name=point.label,
            legendgroup=str(index),
            showlegend=col == 1,
            hovertemplate=f"{x.count} of {x.n} refused, {y.count} of {y.n} answered",
        ),
        row=1,
        col=col,
    )


def _add_labels(figure: "go.Figure", col: int, points: Sequence[_Point]) -> None:
    """A name at each point; names that would lie on one another are stacked."""
    taken: list[float] = []
    for point in points:
        height = point.asr.value + _LINE
        while any(abs(height - other) < 0.99 * _LINE for other in taken):
            height += _LINE
        taken.append(height)
        place = {"x": point.across.value, "y": height, "xanchor": "left", "xshift": 8}
        figure.add_annotation({**place, "text": point.label, "showarrow": False}, row=1, col=col)


def _bars(rate: Rate) -> dict[str, object]:
    low, high = rate.interval
    return {"type": "data", "symmetric": False, "array": [high - rate.value], "arrayminus": [rate.value - low]}
