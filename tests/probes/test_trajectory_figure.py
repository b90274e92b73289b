"""The picture of a trajectory: every score, the segments, plateau and edge at their places."""

import numpy as np
import pytest

from interp.display.palette import COLORS, INK
from probes.cliff import measure
from probes.trajectory import Trajectory
from probes.trajectory_figure import N_AFTER, N_BEFORE, N_LINE, trajectory_figure
from tests.probes.transcripts import transcript


def made(n_thinking: int = 30, **parts: int) -> Trajectory:
    rollout = transcript("a", n_thinking, **parts)
    return Trajectory(rollout, np.random.default_rng(0).normal(0, 3, len(rollout)).astype(np.float32))


def test_scores_are_drawn_whole_and_enlarged_around_the_edge() -> None:
    trajectory = made()
    edge, scores = trajectory.transcript.edge, trajectory.scores
    whole, near = (trace for trace in trajectory_figure(trajectory).data if trace.name == "refusal score")
    np.testing.assert_allclose(whole.y, scores, atol=1e-4)
    assert list(whole.x) == list(range(len(scores)))
    assert list(near.x) == list(range(edge - N_BEFORE, edge + 1 + N_AFTER))
    np.testing.assert_allclose(near.y, scores[edge - N_BEFORE : edge + 1 + N_AFTER], atol=1e-4)


def test_segments_plateau_and_edge_are_marked() -> None:
    trajectory = made()
    figure, found = trajectory_figure(trajectory), measure(trajectory)
    spans = trajectory.transcript.segments
    areas = {
        (shape.x0 + 0.5, shape.x1 + 0.5) for shape in figure.layout.shapes if shape.type == "rect" and shape.xref == "x"
    }
    assert areas == {spans[name] for name in ("instruction", "thinking", "close")}
    assert {trace.name for trace in figure.data if trace.showlegend is not False} == {
        "instruction",
        "thinking",
        "close",
    }
    edges = [shape.x0 for shape in figure.layout.shapes if shape.line.dash == "dot"]
    assert edges == [trajectory.transcript.edge] * 2
    (plateau,) = [shape for shape in figure.layout.shapes if shape.line.dash == "dash"]
    # As the cliff is measured: over the second half of the thinking.
    assert plateau.y0 == pytest.approx(found.plateau) and (plateau.x0, plateau.x1) == (17, 31)
    texts = [note.text for note in figure.layout.annotations]
    assert texts == [
        f"whole transcript (dashed: plateau {found.plateau:.2f})",
        f"around the edge (dotted: {found.edge:.2f})",
    ]


@pytest.mark.parametrize(("outcome", "color"), [("complied", COLORS["complied"]), ("unknown", INK), (None, INK)])
def test_the_line_has_the_colour_of_the_outcome(outcome: str | None, color: str) -> None:
    lines = [trace for trace in trajectory_figure(made(), outcome).data if trace.name == "refusal score"]
    assert {trace.line.color for trace in lines} == {color}


def test_a_long_line_has_its_running_mean() -> None:
    trajectory = made(N_LINE)
    (mean,) = [trace for trace in trajectory_figure(trajectory).data if (trace.name or "").startswith("mean of")]
    assert mean.name == "mean of 5 tokens"
    np.testing.assert_allclose(mean.y[50], trajectory.scores[48:53].mean(), atol=1e-4)
    np.testing.assert_allclose(mean.y[0], trajectory.scores[:3].mean(), atol=1e-4)


@pytest.mark.parametrize("parts", [{"n_thinking": 0}, {"n_close": 0}])
def test_without_an_edge_the_whole_transcript_is_shown(parts: dict[str, int]) -> None:
    trajectory = made(**{"n_thinking": 5, **parts})
    lines = [trace for trace in trajectory_figure(trajectory).data if trace.name == "refusal score"]
    assert len(lines[0].y) == len(trajectory.transcript)
    assert len(lines) == (1 if "n_close" in parts else 2)
