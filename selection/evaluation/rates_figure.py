"""The picture of an evaluation: every rate with its interval, and the answered share of each harmful category."""

from typing import TYPE_CHECKING

from interp.display.layout import lay_out
from interp.display.palette import COLORS, CONTROL
from interp.display.text import caption, shortened
from selection.evaluation.evaluation import Evaluation
from selection.evaluation.outcomes import MEASURES, Rate

if TYPE_CHECKING:
    import plotly.graph_objects as go

_COLORS = {
    "asr": COLORS["complied"],
    "refusal": COLORS["refused"],
    "over_refusal": COLORS["benign"],
    "trap_refusal": COLORS["benign"],
}
_WORDS = {
    "asr": "harmful answered (ASR)",
    "refusal": "harmful refused",
    "over_refusal": "benign refused",
    "trap_refusal": "traps refused",
    "unclosed": "thinking unclosed",
    "looping": "looping",
    "empty": "blank response",
}


def rates_figure(evaluation: Evaluation) -> "go.Figure":
    """A point a rate with its Wilson 95 % interval: left over all prompts, right the ASR of each harmful category."""
    from plotly.subplots import make_subplots

    overall = {
        _WORDS[name]: (evaluation.rate(name), _COLORS.get(name, CONTROL))
        for name, measure in MEASURES.items()
        if set(measure.sets) & set(evaluation.sets)
    }
    by_category = {
        caption(shortened(category, 30)): (evaluation.rate("asr", category=category), COLORS["complied"])
        for category in evaluation.categories("harmful")
    }
    parts = [overall, by_category] if by_category else [overall]
    titles = ["all prompts", "harmful answered (ASR), by category"][: len(parts)]
    figure = make_subplots(rows=1, cols=len(parts), subplot_titles=titles, horizontal_spacing=0.24)
    for col, part in enumerate(parts, start=1):
        for words, (rate, color) in part.items():
            if rate.n:
                _add_rate(figure, col, words, rate, color)
        figure.update_yaxes(categoryorder="array", categoryarray=list(part)[::-1], col=col)
    figure.update_yaxes(type="category")
    figure.update_xaxes(title_text="share of prompts", tickformat=".0%", range=[-0.03, 1.03])
    rows = max(len(part) for part in parts)
    return lay_out(figure, caption(evaluation.label), height=170 + 30 * max(4, rows), top=76, legend=False)


def _add_rate(figure: "go.Figure", col: int, words: str, rate: Rate, color: str) -> None:
    import plotly.graph_objects as go

    low, high = rate.interval
    bars = {"array": [high - rate.value], "arrayminus": [rate.value - low], "color": color}
    figure.add_trace(
        go.Scatter(
            x=[rate.value],
            y=[words],
            mode="markers",
            name=words,
            marker={"color": color, "size": 10},
            error_x={"type": "data", "symmetric": False, "thickness": 2, "width": 5, **bars},
            hovertemplate=f"{rate.count} of {rate.n}: %{{x:.3f}} [{low:.3f}, {high:.3f}]<extra>{words}</extra>",
        ),
        row=1,
        col=col,
    )
