"""What a search for heads finds where there is nothing to find: its figures in the worlds of `probes.nulls`.

The whole search is put through each world, with the probe fitted in it: choosing the cases, asking whether there is a
cliff at all, ranking, naming heads. Where the world shows no cliff the search ends there, as it would for a user, and
has found nothing.

A random direction is a null of attribution alone, the one method that reads the probe's direction. It is a hard one:
what happens at the edge has a part along any direction, and where that part is large the same heads write it.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from circuits.cases import LIMIT, Cases
from circuits.curve import AblationCurve, CurveOptions, ablation_curve
from circuits.head_scores import HeadScores
from circuits.rank import RankOptions, rank_heads
from interp.null_runs import NullRuns
from probes.nulls import Analysis, World

Found = TypeVar("Found", HeadScores, AblationCurve)

SHARE = "largest share that a head explains"
NAMED = "number of suppression heads"
"""The figures of a ranking that are set beside a null's."""


def figures_of(scores: HeadScores) -> dict[str, float]:
    """The largest share of what is to be explained of any head, and how many heads are named; 0 for nothing."""
    share = float(scores.table["share"].max())
    return {SHARE: 0.0 if math.isnan(share) else share, NAMED: float(len(scores.suppressors))}


def ranking_of(options: RankOptions, limit: int = LIMIT) -> Analysis:
    """The ranking of the heads of a world, as `rank_heads` does it, by its figures."""

    def analysis(world: World) -> dict[str, float]:
        _, scores = _ranked(world, options, limit)
        return figures_of(scores)

    return analysis


def rise_in(curve: AblationCurve) -> dict[str, float]:
    """By how much the refusal logit rises with the most ranked heads of a curve ablated."""
    ranked = curve.table[curve.table["set"] == "ranked"].sort_values("n_heads")
    logits = ranked["refusal_logit"].to_numpy()
    return {rise_name(int(ranked["n_heads"].max())): float(logits[-1] - logits[0])}


def rise_name(count: int) -> str:
    """What that figure is called."""
    return f"rise of the refusal logit with {count} head{'s' * (count != 1)} ablated"


def curve_of(ranking: RankOptions, options: CurveOptions, limit: int = LIMIT) -> Analysis:
    """The curve of a world along its own ranking, without answers, by its rise; 0 where there is nothing to explain.

    Its largest number of heads alone is ablated.
    """
    most = max(options.counts)

    def analysis(world: World) -> dict[str, float]:
        cases, scores = _ranked(world, ranking, limit)
        if cases.nothing is not None:
            return {rise_name(most): 0.0}
        assert world.probe is not None, "a curve reads a probe"
        small = replace(options, counts=(most,), n_random=0, n_random_answered=0, n_prompts=0)
        return rise_in(ablation_curve(world.model, world.probe, cases, scores.top(most), small))

    return analysis


def _ranked(world: World, options: RankOptions, limit: int) -> tuple[Cases, HeadScores]:
    assert world.probe is not None, "cases are chosen by a probe"
    cases = Cases.of(
        world.model, world.probe, world.rollouts, limit=limit, seed=options.seed, batch_tokens=options.batch_tokens
    )
    return cases, rank_heads(world.model, world.probe, cases, options)


def with_nulls(found: Found, nulls: Sequence[NullRuns]) -> Found:
    """The same table or curve, whose facts and evidence tell of the nulls too."""
    return replace(found, facts={**found.facts, "nulls": [null.summary() for null in nulls]}) if nulls else found
