"""The picture of one trajectory: the refusal score at every token, its segments, the plateau, and the edge."""

from typing import TYPE_CHECKING

import numpy as np

from interp.display.layout import MONO, lay_out
from interp.display.palette import COLORS, INK, SEGMENT_COLORS, band
from interp.display.text import caption, label, shortened
from interp.errors import CliffscopeError
from interp.transcripts import Transcript
from probes.trajectory import Trajectory

if TYPE_CHECKING:
    import plotly.graph_objects as go

N_BEFORE = 14
"""Tokens before the edge that stand enlarged, with their texts."""
N_AFTER = 3
"""Response tokens after it."""
N_LINE = 400
"""Most tokens whose scores are a plain line; of more, the line is faint and lies behind its running mean."""


def trajectory_figure(trajectory: Trajectory, outcome: str | None = None) -> "go.Figure":
    """The score at each token: left the whole transcript with its segments, right the tokens around the edge.

    The dashed line is the plateau, over the second half of the thinking; the dotted one the edge. A transcript without
    thinking, or whose thinking never closes, has the left panel alone.

    Args:
        trajectory: Scores of one rollout.
        outcome: `complied`, `refused` or `benign`, for the colour; grey if it is not known.
    """
    from plotly.subplots import make_subplots

    transcript, edge = trajectory.transcript, edge_of(trajectory.transcript)
    titles = _titles(trajectory, edge)
    figure = make_subplots(
        rows=1,
        cols=len(titles),
        subplot_titles=titles,
        horizontal_spacing=0.05,
        shared_yaxes=True,
        column_widths=[0.55, 0.45][: len(titles)],
    )
    color = COLORS.get(outcome or "", INK)
    n = len(transcript)
    _add_segments(figure, 1, transcript, 0, n)
    _add_scores(figure, 1, trajectory, 0, n, color if n <= N_LINE else band(color, 0.35))
    if n > N_LINE:
        _add_running_mean(figure, trajectory, color)
    figure.update_xaxes(title_text="token", range=[-0.5, n - 0.5], col=1)
    if edge is not None:
        first, last = max(0, edge - N_BEFORE), min(n, edge + 1 + N_AFTER)
        _add_segments(figure, 2, transcript, first, last)
        _add_scores(figure, 2, trajectory, first, last, color)
        _mark(figure, trajectory, edge)
        places = list(range(first, last))
        texts = [label(shortened(transcript.tokens[place], 12)) for place in places]
        figure.update_xaxes(tickvals=places, ticktext=texts, tickangle=-60, tickfont={"family": MONO}, col=2)
        figure.update_xaxes(title_text="token", range=[first - 0.5, last - 0.5], col=2)
    figure.update_yaxes(range=[-0.03, 1.03])
    figure.update_yaxes(title_text="refusal score", col=1)
    figure.update_xaxes(showgrid=False)
    title = f"{caption(shortened(transcript.id))}{f': {caption(outcome)}' if outcome else ''}"
    return lay_out(figure, title, height=400, top=76, drop=110)


def edge_of(transcript: Transcript) -> int | None:
    """The edge, or `None` where there is none."""
    try:
        return transcript.edge
    except CliffscopeError:
        return None


def plateau_of(trajectory: Trajectory) -> tuple[float, range] | None:
    """The mean score over the second half of the thinking, and which tokens these are; `None` without thinking."""
    try:
        thinking = trajectory.thinking
    except CliffscopeError:
        return None
    places = range(thinking.start + (thinking.stop - thinking.start) // 2, thinking.stop)
    return float(trajectory.scores[places.start : places.stop].mean()), places


def _add_segments(figure: "go.Figure", col: int, transcript: Transcript, first: int, last: int) -> None:
    """A translucent column for each segment that is in view, named in the legend by a square."""
    import plotly.graph_objects as go

    for segment, start, stop in transcript.stretches:
        start, stop = max(start, first), min(stop, last)
        color = SEGMENT_COLORS[segment]
        if start >= stop or color == INK:
            continue
        shape = {"x0": start - 0.5, "x1": stop - 0.5, "y0": 0, "y1": 1, "fillcolor": band(color, 0.25)}
        figure.add_shape(type="rect", layer="below", line={"width": 0}, yref="y domain", **shape, row=1, col=col)
        if not any(trace.name == segment for trace in figure.data):
            square = {"color": band(color, 0.6), "symbol": "square", "size": 11}
            figure.add_trace(
                go.Scatter(x=[None], y=[None], mode="markers", marker=square, name=segment), row=1, col=col
            )


def _add_scores(figure: "go.Figure", col: int, trajectory: Trajectory, first: int, last: int, color: str) -> None:
    import plotly.graph_objects as go

    transcript, few = trajectory.transcript, last - first <= 48
    figure.add_trace(
        go.Scatter(
            x=list(range(first, last)),
            y=np.round(trajectory.scores[first:last].astype(float), 4),
            text=[label(token) for token in transcript.tokens[first:last]],
            customdata=transcript.labels[first:last],
            mode="lines+markers" if few else "lines",
            line={"color": color, "width": 2},
            marker={"size": 6},
            name="refusal score",
            showlegend=False,
            hovertemplate="%{text} (token %{x}, %{customdata})<br>%{y:.3f}<extra></extra>",
        ),
        row=1,
        col=col,
    )


def _add_running_mean(figure: "go.Figure", trajectory: Trajectory, color: str) -> None:
    """The mean of each token and its neighbours; at the ends, of those that there are."""
    import plotly.graph_objects as go

    width = 2 * (len(trajectory.transcript) // 200) + 1
    window, scores = np.ones(width), trajectory.scores.astype(float)
    mean = np.convolve(scores, window, "same") / np.convolve(np.ones_like(scores), window, "same")
    line = {"color": color, "width": 2}
    name = f"mean of {width} tokens"
    trace = go.Scatter(x=list(range(len(mean))), y=np.round(mean, 4), mode="lines", line=line, name=name)
    figure.add_trace(trace.update(hoverinfo="skip"), row=1, col=1)


def _titles(trajectory: Trajectory, edge: int | None) -> list[str]:
    """What the panels show, with the figures of the lines in them: there they hide nothing."""
    if edge is None:
        return ["whole transcript"]
    plateau = plateau_of(trajectory)
    dashed = "" if plateau is None else f" (dashed: plateau {plateau[0]:.2f})"
    return [f"whole transcript{dashed}", f"around the edge (dotted: {float(trajectory.scores[edge]):.2f})"]


def _mark(figure: "go.Figure", trajectory: Trajectory, edge: int) -> None:
    """The edge in both panels, and the plateau where it is measured."""
    for col in (1, 2):
        figure.add_vline(x=edge, line={"color": INK, "width": 1.5, "dash": "dot"}, row=1, col=col)
    if (plateau := plateau_of(trajectory)) is not None:
        mean, places = plateau
        line = {"x0": places.start, "x1": places.stop - 1, "y0": mean, "y1": mean}
        figure.add_shape(type="line", line={"color": INK, "width": 1.5, "dash": "dash"}, **line, row=1, col=1)
