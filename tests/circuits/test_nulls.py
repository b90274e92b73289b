"""The search for heads where there is nothing to find: planted heads stand; what a null shows too is called that."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from circuits.cases import Cases
from circuits.curve import CurveOptions, ablation_curve
from circuits.curve_figure import curve_figure
from circuits.head_grid import head_grid, largest_null_share
from circuits.head_scores import HeadScores
from circuits.nulls import NAMED, SHARE, curve_of, figures_of, ranking_of, rise_in, rise_name, with_nulls
from circuits.rank import RankOptions, rank_heads
from interp.null_runs import NullRuns
from interventions.heads import Head
from probes.nulls import World, make_null, run_null
from tests.circuits.material import organism, organism_probe, organism_rollouts

LIMIT = 12


def world(name: str = "cliff") -> World:
    probe = organism_probe("cliff").at(training={"layer_choice": "given"})
    return World(organism(name), organism_rollouts("cliff"), probe)


def scores(strong: float = 3.0) -> HeadScores:
    drawn = np.random.default_rng(0).normal(0, 0.1, size=(20, 6, 8))
    drawn[:, 1, 2] += strong
    return HeadScores.of("ablation", organism("cliff"), drawn, to_explain=6.0)


@pytest.mark.slow
@pytest.mark.parametrize("null", ["benign", "random-weights", "shuffled"])
def test_planted_heads_stand(null: str) -> None:
    found = run_null(null, world(), ranking_of(RankOptions(), LIMIT), runs=3)
    share, named = found
    assert (share.statistic, named.statistic) == (SHARE, NAMED)
    assert named.observed == 2 and share.observed > 0.8
    assert max(share.values) < 0.05 and max(named.values) == 0


@pytest.mark.slow
def test_a_random_direction_is_a_null_of_attribution() -> None:
    """What the planted heads do at the edge has a part along any direction, and attribution cannot tell."""
    given, options = world(), RankOptions(method="attribution")
    found = run_null("random-direction", given, ranking_of(options, LIMIT), runs=1)
    drawn = make_null("random-direction", given, 0)
    assert drawn.probe is not None and drawn.model is given.model
    cases = Cases.of(drawn.model, drawn.probe, drawn.rollouts, limit=LIMIT)
    expected = figures_of(rank_heads(drawn.model, drawn.probe, cases, options))
    assert {one.statistic: one.values[0] for one in found} == pytest.approx(expected)
    assert found[1].observed == 2 and found[0].shown == (expected[SHARE] >= found[0].observed)


def test_where_the_world_has_no_cliff_the_search_ends() -> None:
    """The aligned model has none on the same rollouts: no head is even scored."""
    given = world("aligned")
    assert ranking_of(RankOptions(), LIMIT)(given) == {SHARE: 0.0, NAMED: 0.0}
    assert curve_of(RankOptions(), CurveOptions(counts=(1, 3)), LIMIT)(given) == {rise_name(3): 0.0}


def test_the_figures_are_those_of_the_table() -> None:
    made = scores()
    assert figures_of(made) == {SHARE: pytest.approx(float(made.table["share"].max())), NAMED: 1.0}
    assert figures_of(HeadScores.nothing("ablation", organism("cliff"), "no reason")) == {SHARE: 0.0, NAMED: 0.0}


def test_nulls_are_told_kept_and_drawn(tmp_path: Path) -> None:
    plain, share = scores(), float(scores().table["share"].max())
    assert plain.nulls == () and largest_null_share(plain) == -np.inf
    stands = with_nulls(plain, (NullRuns("random-weights", SHARE, share, (0.01,) * 19),))
    shown = with_nulls(plain, (NullRuns("random-weights", SHARE, share, (share + 0.1,) * 19),))
    assert stands.evidence.startswith(plain.evidence) and "Against random weights" in stands.evidence
    assert "Random weights show as much" in shown.evidence
    for number, made in enumerate((stands, shown)):
        made.save(tmp_path / f"{number}.parquet")
        assert HeadScores.load(tmp_path / f"{number}.parquet").nulls == made.nulls
    frames = [[shape.line.dash for shape in head_grid(made).layout.shapes] for made in (plain, stands, shown)]
    assert frames == [["solid"], ["solid"], ["dot"]]
    assert "largest share" in head_grid(stands).layout.title.text
    assert with_nulls(plain, ()) is plain


@pytest.mark.slow
def test_the_curve_of_the_planted_heads_stands(tmp_path: Path) -> None:
    given, options = world(), CurveOptions(counts=(1, 2), n_random=1, n_prompts=0)
    assert given.probe is not None
    cases = Cases.of(given.model, given.probe, given.rollouts, limit=LIMIT)
    ranked = rank_heads(given.model, given.probe, cases).top(2)
    assert set(ranked) == {Head(3, 1), Head(4, 5)}
    curve = ablation_curve(given.model, given.probe, cases, ranked, options)
    analysis = curve_of(RankOptions(), options, LIMIT)
    # The search itself, put through the world as it is, gives the same curve.
    assert analysis(given) == pytest.approx(rise_in(curve), abs=1e-4)
    nulls = run_null("random-weights", given, analysis, rise_in(curve), runs=2)
    assert nulls[0].observed > 5 and max(nulls[0].values) < 0.5
    told = with_nulls(curve, nulls)
    assert "Against random weights: rise of the refusal logit with 2 heads ablated" in told.evidence
    told.save(tmp_path / "curve.parquet")
    assert type(curve).load(tmp_path / "curve.parquet").nulls == nulls
    names = {trace.name for trace in curve_figure(told).data}
    assert "null: random weights" in names and "null: random weights" not in {t.name for t in curve_figure(curve).data}


def test_a_null_of_another_seed_is_another() -> None:
    """Only what is drawn differs: the analysis itself has its own seed."""
    first, second = (replace(world(), probe=None) for _ in range(2))
    assert first.rollouts == second.rollouts
    seen = [run_null("shuffled", first, lambda w: {"n": hash(w.rollouts) % 997}, runs=2, seed=s) for s in (0, 0, 7)]
    assert seen[0] == seen[1] and seen[0][0].values != seen[2][0].values
