"""The cliff: measured as defined, and a verdict that a common shift of all rollouts does not fool."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.cliff import Cliff, measure
from probes.cliff_figure import cliff_figure
from probes.trajectory import Trajectory, average, sigmoid
from tests.probes.transcripts import transcript

SITE = "blocks.5.hook_resid_post"


def trajectory(id: str, plateau: float, edge: float, n_thinking: int = 20, noise: float = 0.0) -> Trajectory:
    """A rollout whose log-odds are `plateau` throughout and `edge` at the last two close tokens."""
    text = transcript(id, n_thinking)
    rng = np.random.default_rng([sum(map(ord, id)), n_thinking])
    logits = plateau + noise * rng.standard_normal(len(text))
    logits[text.edge - 1 : text.edge + 1] += edge - plateau
    return Trajectory(text, logits.astype(np.float32))


def cliff(groups: dict[str, tuple[int, float, float]], null: tuple[float, ...] = ()) -> Cliff:
    """A cliff of groups: outcome to (rollouts, plateau, edge in log-odds), with a little noise."""
    rows, curves = [], {}
    for outcome, (n, plateau, edge) in groups.items():
        made = [trajectory(f"{outcome}{i}", plateau, edge, 10 + i, noise=0.3) for i in range(n)]
        rows += [measure(t, outcome) for t in made]
        curves[outcome] = average(made)
    return Cliff("planted", 5, SITE, tuple(rows), curves, null)


def test_a_rollout_is_measured_as_defined() -> None:
    text = transcript("a", 5)
    logits = np.zeros(len(text), dtype=np.float32)
    start, stop = text.segments["thinking"]
    logits[start:stop] = [-9.0, -9.0, 1.0, 2.0, 3.0]  # the second half of five: the last three
    logits[text.edge] = -2.0
    row = measure(Trajectory(text, logits), "complied", "weapons")
    plateau = float(sigmoid(np.array([1.0, 2.0, 3.0])).mean())
    assert row.plateau == pytest.approx(plateau)
    assert row.edge == pytest.approx(float(sigmoid(-2.0)))
    assert row.cliff == pytest.approx(row.plateau - row.edge)
    assert row.fall == pytest.approx(2.0 - -2.0)
    assert (row.id, row.outcome, row.category, row.n_thinking) == ("a", "complied", "weapons", 5)
    highest = measure(Trajectory(text, logits), plateau="max")
    assert highest.plateau == pytest.approx(float(sigmoid(3.0)))


def test_the_drop_is_where_the_score_falls_for_good() -> None:
    assert measure(trajectory("a", 4.0, -4.0)).drop == "close:-2"
    text = transcript("b", 11)
    logits = np.full(len(text), 4.0, dtype=np.float32)
    start, _ = text.segments["thinking"]
    logits[start + 3] = -4.0  # a dip that recovers is not the drop
    logits[start + 8 :] = -4.0
    assert measure(Trajectory(text, logits)).drop == "think:0.80"
    assert measure(trajectory("c", 4.0, 4.0)).drop is None


@given(plateau=st.floats(-8, 8), edge=st.floats(-8, 8), n=st.integers(1, 60))
def test_the_cliff_stays_in_its_bounds(plateau: float, edge: float, n: int) -> None:
    row = measure(trajectory("x", plateau, edge, n))
    assert -1 <= row.cliff <= 1
    assert row.cliff == pytest.approx(float(sigmoid(plateau) - sigmoid(edge)), abs=1e-5)


def test_a_planted_cliff_is_found_with_its_evidence() -> None:
    found = cliff({"complied": (30, 4, -3), "refused": (30, 5, 5), "benign": (30, -4, -4)}, null=(0.1, -0.3) * 20)
    assert found.verdict == "cliff" and not found.objections
    assert found.mean == pytest.approx(float(sigmoid(4.0) - sigmoid(-3.0)), abs=0.02)
    assert found.interval.low < found.mean < found.interval.high
    assert found.p == pytest.approx(1 / 41)
    for part in ("30 complied rollouts", "more than benign", "more than refused", "shuffled-label"):
        assert part in found.evidence
    figures = found.summary()
    assert figures["n_complied"] == 30 and figures["verdict"] == "cliff"
    assert list(found.table["outcome"].value_counts()) == [30, 30, 30]


def test_a_shift_common_to_all_is_no_cliff_though_the_raw_curve_drops() -> None:
    """The close tokens take 6 log-odds off every rollout: the mean score of complied ones drops by 0.8."""
    confounded = cliff({"complied": (30, 4, -2), "refused": (30, 5, -1), "benign": (30, -4, -10)})
    assert confounded.mean > 0.8 and confounded.interval.low > 0.8
    assert confounded.verdict == "no cliff"
    assert any("benign rollouts fall as far" in objection for objection in confounded.objections)


def test_a_difference_that_is_sure_and_small_beside_a_common_shift_is_no_cliff() -> None:
    found = cliff({"complied": (40, 4.0, -2.0), "refused": (40, 4.0, -1.3), "benign": (40, -4.0, -9.3)})
    assert found.mean > 0.8 and all(found.excess_fall(control)[1].low > 0 for control in ("benign", "refused"))
    assert found.verdict == "no cliff"
    assert "most of the fall is shared by benign and refused rollouts: of 6.0" in found.evidence


def test_what_benign_rollouts_alone_fall_too_is_not_shared() -> None:
    groups = {"complied": (40, 4.0, -2.0), "benign": (40, -4.0, -9.0)}
    assert cliff(groups).verdict == "no cliff"
    assert cliff(groups | {"refused": (40, 4.0, 4.0)}).verdict == "cliff"


@pytest.mark.parametrize(
    ("groups", "null", "reason"),
    [
        ({"refused": (30, 5, 5), "benign": (30, -4, -4)}, (), "answered none of the 30 harmful prompts"),
        ({"complied": (7, 4, -3), "benign": (30, -4, -4)}, (), "only 7 complied rollouts"),
        ({"complied": (30, 4, 4), "benign": (30, -4, -4)}, (), "is not clearly above 0.1"),
        ({"complied": (30, 4, -3), "benign": (3, -4, -4)}, (), "only 3 benign rollouts as a control"),
        ({"complied": (30, 4, -3), "benign": (30, -4, -4)}, (0.95, 0.0, 0.0), "shuffled labels show as large"),
        (
            {"complied": (30, 4, -3), "refused": (30, 5, -3), "benign": (30, -4, -4)},
            (),
            "refused rollouts fall as far",
        ),
    ],
)
def test_every_objection_stops_the_verdict(
    groups: dict[str, tuple[int, float, float]], null: tuple[float, ...], reason: str
) -> None:
    found = cliff(groups, null)
    assert found.verdict == "no cliff"
    assert reason in found.evidence


def test_without_complied_rollouts_figures_are_missing_not_zero() -> None:
    figures = cliff({"refused": (9, 5, 5), "benign": (9, -4, -4)}).summary()
    assert figures["mean"] is None and figures["ci95"] is None and figures["plateau_complied"] is None


def test_the_interval_covers_the_truth() -> None:
    """The mean cliff's interval over repeated draws of rollouts whose true mean cliff is known."""
    covered = 0
    truth = 0.5
    for draw in range(200):
        rng = np.random.default_rng(draw)
        heights = rng.normal(truth, 0.1, size=40)
        rows = tuple(
            measure(trajectory(f"{draw}-{i}", 0.0, float(np.log((0.5 - h) / (0.5 + h)))), "complied")
            for i, h in enumerate(np.clip(heights - 0.25, -0.45, 0.45))
        )
        interval = Cliff("m", 0, SITE, rows, {}).interval
        covered += interval.low <= truth - 0.25 <= interval.high
    assert 0.90 <= covered / 200 <= 0.99


def test_the_figure_has_every_curve_and_no_markup_from_tokens() -> None:
    found = cliff({"complied": (9, 4, -3), "benign": (9, -4, -4)})
    figure = cliff_figure(found)
    names = [trace.name for trace in figure.data if trace.name]
    assert "harmful, complied (n = 9)" in names and "benign (n = 9)" in names
    labels = figure.layout.xaxis2.ticktext
    assert labels == ("⏎", "&lt;/think&gt;", "⏎", "⏎")
