"""The picture of a selection: the chosen examples among the pool by cliff, and what each falls from and to."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from interp.display.layout import lay_out
from interp.display.palette import COLORS, CONTROL, INK, NAMES, band
from interp.display.text import caption
from selection.scoring import Score
from selection.select import Selection

if TYPE_CHECKING:
    import plotly.graph_objects as go

N_BINS = 40
N_RANKS = 400
"""Most chosen examples that have a line of their own."""


def select_figure(selection: Selection) -> "go.Figure":
    """Left how the pool's cliffs lie and which of them were chosen; right plateau and edge of the chosen, by rank."""
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=1, cols=2, subplot_titles=["cliffs in the pool", "chosen examples"])
    _add_cliffs(figure, selection)
    _add_ranks(figure, selection.choice.scores[:N_RANKS])
    figure.update_xaxes(title_text="cliff (plateau − edge)", range=[-1.02, 1.02], col=1)
    figure.update_yaxes(title_text="examples (log)", type="log", col=1)
    figure.update_xaxes(title_text="rank", rangemode="tozero", col=2)
    figure.update_yaxes(title_text="refusal score", range=[-0.02, 1.02], col=2)
    method = caption(str(selection.manifest.get("options", {}).get("method", "")))
    title = f"{len(selection.choice.scores):,} of {len(_pool(selection)):,} examples, by {method or 'choice'}"
    return lay_out(figure, title, height=420, top=76)


def _pool(selection: Selection) -> Sequence[Score]:
    """The whole pool where its scores are known, else what was chosen."""
    return selection.pool or selection.choice.scores


def _add_cliffs(figure: "go.Figure", selection: Selection) -> None:
    """Steps of a histogram for each outcome of the pool, and a filled one of what was chosen."""
    import plotly.graph_objects as go

    edges = np.linspace(-1, 1, N_BINS + 1)
    middle = (edges[:-1] + edges[1:]) / 2
    pool = [score for score in _pool(selection) if score.cliff is not None]
    cliffs = np.array([score.cliff for score in selection.choice.scores if score.cliff is not None], dtype=np.float64)
    chosen, _ = np.histogram(cliffs, edges)
    bars = {"color": band(INK, 0.45), "line": {"width": 0}}
    figure.add_trace(
        go.Bar(x=middle, y=_positive(chosen), width=2 / N_BINS, marker=bars, name="chosen", hovertemplate="%{y}"),
        row=1,
        col=1,
    )
    for outcome in dict.fromkeys(score.outcome for score in pool):
        mine = np.array([score.cliff for score in pool if score.outcome == outcome], dtype=np.float64)
        counts, _ = np.histogram(mine, edges)
        line = {"color": COLORS.get(outcome, CONTROL), "width": 2, "shape": "hvh"}
        shown = NAMES.get(outcome, caption(outcome))
        figure.add_trace(
            go.Scatter(x=middle, y=_positive(counts), mode="lines+markers", line=line, name=f"pool: {shown}"),
            row=1,
            col=1,
        )
    figure.update_traces(marker={"size": 4}, selector={"type": "scatter"})


def _positive(counts: np.ndarray) -> list[float | None]:
    """Counts on an axis of logarithms, which has no 0."""
    return [float(count) if count else None for count in counts]


def _add_ranks(figure: "go.Figure", scores: Sequence[Score]) -> None:
    """A line from plateau to edge for each chosen example, in the colour of its outcome."""
    import plotly.graph_objects as go

    for outcome in dict.fromkeys(score.outcome for score in scores):
        mine = [(rank, score.plateau, score.edge) for rank, score in enumerate(scores, 1) if score.outcome == outcome]
        color = COLORS.get(outcome, CONTROL)
        x = [value for rank, _, _ in mine for value in (rank, rank, None)]
        y = [value for _, plateau, edge in mine for value in (plateau, edge, None)]
        lines = go.Scatter(x=x, y=y, mode="lines", line={"color": band(color, 0.6), "width": 1.5})
        ends = go.Scatter(
            x=[rank for rank, _, _ in mine],
            y=[edge for _, _, edge in mine],
            mode="markers",
            marker={"color": color, "size": 5},
            name=f"edge (line from the plateau): {NAMES.get(outcome, caption(outcome))}",
            hovertemplate="rank %{x}: edge %{y:.3f}<extra></extra>",
        )
        figure.add_trace(lines.update(showlegend=False, hoverinfo="skip"), row=1, col=2)
        figure.add_trace(ends, row=1, col=2)
