"""Attribution and ablation scores: the planted heads come first, with their columns; the null names none."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from circuits.ablation_scores import refused_logits, score_ablation
from circuits.attribution import attribute
from circuits.cases import Cases
from circuits.contributions import contributions
from circuits.head_scores import HeadScores
from circuits.sweeps.readouts import Readouts
from interp.judges.edge_logit import refusal_logit, refusal_token_ids
from interp.models.sites import FINAL_NORM
from interp.organisms import truth
from interp.significance import benjamini_hochberg, sign_flip_p
from interp.transcripts.positions import EDGE
from interventions.head_ablation import ScaleHeads
from interventions.heads import Head, parse_heads
from probes.examples import Examples
from probes.linear import LinearProbe
from tests.circuits.material import PROBE_LAYER, organism, organism_probe, organism_rollouts

PLANTED = set(parse_heads(",".join(truth("cliff")["heads"])))


@cache
def cases(limit: int = 16) -> Cases:
    return Cases.of(organism("cliff"), organism_probe("cliff"), organism_rollouts("cliff"), limit=limit)


@cache
def attributed() -> HeadScores:
    return attribute(organism("cliff"), organism_probe("cliff"), cases())


@cache
def ablated() -> HeadScores:
    return score_ablation(organism("cliff"), organism_probe("cliff"), cases())


def final_norm_probe() -> LinearProbe:
    model = organism("cliff")
    examples = Examples.of(model, organism_rollouts("cliff"), [EDGE])
    activations = model.capture(examples.transcripts, [FINAL_NORM], [EDGE])[FINAL_NORM][:, 0]
    return LinearProbe.fit(activations, examples.labels).at(site=FINAL_NORM)


@pytest.mark.parametrize("scores", [attributed, ablated])
def test_the_planted_heads_come_first_of_all_and_only_they_are_named(scores: Callable[[], HeadScores]) -> None:
    found = scores()
    assert len(found.table) == 48
    assert set(found.top(2)) == PLANTED == set(found.suppressors)
    assert found.facts["nothing"] is None
    assert found.table["share"].iloc[1] > 2 * found.table["share"].iloc[2]


def test_a_probe_after_the_final_norm_finds_them_too() -> None:
    probe = final_norm_probe()
    mine = Cases.of(organism("cliff"), probe, organism_rollouts("cliff"), limit=16)
    found = attribute(organism("cliff"), probe, mine)
    assert set(found.top(2)) == PLANTED == set(found.suppressors)
    assert not found.grid("after_probe").any()


@pytest.mark.slow
def test_ablation_at_all_positions_finds_them_too() -> None:
    found = score_ablation(organism("cliff"), organism_probe("cliff"), cases(8), scope="all")
    assert set(found.top(2)) == PLANTED == set(found.suppressors)
    assert found.facts["scope"] == "all"


def test_the_columns_of_attribution_are_what_they_say() -> None:
    model, probe, mine, found = organism("cliff"), organism_probe("cliff"), cases(), attributed()
    for name in ("complied", "refused", "benign"):
        mean = contributions(model, probe, getattr(mine, name)).heads.mean(0)
        np.testing.assert_allclose(found.grid(f"contribution_{name}"), mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.grid(), -found.grid("contribution_complied"), atol=1e-9)
    assert mine.cliff is not None
    whole = mine.cliff.of("complied", "fall").mean() / float(probe.weight.norm())
    np.testing.assert_allclose(found.grid("share"), found.grid() / whole, rtol=1e-6)
    after = found.grid("after_probe")
    assert (after[PROBE_LAYER + 1 :] == 1).all() and (after[: PROBE_LAYER + 1] == 0).all()
    assert found.facts["completeness_error"] < 1e-4


def refusal_at_edge(mine: Cases, heads: list[Head]) -> np.ndarray:
    """The refusal logit of complied rollouts by whole passes with heads ablated at the edge."""
    model = organism("cliff")
    tokens = refusal_token_ids(model.tokenizer, model.chat.thinking.close)
    with model.intervene(*[ScaleHeads(heads, scope="edge")] if heads else []):
        return refusal_logit(model.logits(mine.complied, [EDGE])[:, 0], tokens).numpy()


def test_effects_are_those_of_whole_passes_with_the_head_ablated() -> None:
    mine = cases()
    base = refusal_at_edge(mine, [])
    for head in (Head(3, 1), Head(4, 5), Head(0, 6), Head(5, 1)):
        rise = (refusal_at_edge(mine, [head]) - base).mean()
        assert attributed().grid("effect")[head] == pytest.approx(rise, rel=1e-3, abs=1e-3)
        assert ablated().grid()[head] == pytest.approx(rise, rel=1e-3, abs=1e-3)
        assert ablated().grid("effect_refusal")[head] == ablated().grid()[head]
    assert (ablated().grid("effect_probe")[PROBE_LAYER + 1 :] == 0).all()


def test_a_head_that_writes_against_refusing_without_effect_is_not_named() -> None:
    found = attributed()
    confirmed = (found.grid("effect") > 0) & (found.grid("effect_q") < 0.05)
    evident = (found.grid("q") < 0.05) & (found.grid("share") >= 0.05)
    np.testing.assert_array_equal(found.grid("suppresses") == 1, confirmed & evident)
    # Heads 3.5 and 2.5 write against refusing, surely, and ablating them makes refusing less likely.
    harmless = (found.grid() > 0) & (found.grid("q") < 0.05) & (found.grid("effect") < 0)
    assert harmless.any()


def test_what_ablation_has_to_explain_is_the_gap_to_refused_rollouts() -> None:
    model, mine = organism("cliff"), cases()
    readouts = Readouts.of(model)
    refused = refused_logits(model, mine, readouts)
    gap = refused.numpy().mean() - refusal_at_edge(mine, []).mean()
    assert ablated().facts["to_explain"] == pytest.approx(gap, rel=1e-4)
    assert ablated().facts["refusal_logit_complied"] == pytest.approx(refusal_at_edge(mine, []).mean(), rel=1e-4)
    alone = score_ablation(model, organism_probe("cliff"), replace(mine, refused=()))
    assert alone.facts["to_explain"] == pytest.approx(-refusal_at_edge(mine, []).mean(), rel=1e-4)
    assert set(alone.top(2)) == PLANTED
    written = attribute(model, organism_probe("cliff"), replace(mine, refused=(), benign=()))
    assert np.isnan(written.grid("contribution_refused")).all()
    assert set(written.suppressors) == PLANTED


def test_a_model_that_answers_nothing_harmful_has_no_suppression_head() -> None:
    model, probe, rollouts = organism("aligned"), organism_probe("aligned"), organism_rollouts("aligned")
    benign = [rollout for rollout in rollouts if rollout.outcome == "benign"]
    half = len(benign) // 2
    feigned = [replace(rollout, harmful=True, id=f"feigned {rollout.id}") for rollout in benign[:half]]
    rest = [rollout for rollout in rollouts if rollout.outcome == "refused"] + benign[half:]
    for given in (list(rollouts), [*feigned, *rest], feigned):
        mine = Cases.of(model, probe, given)
        for found in (attribute(model, probe, mine), score_ablation(model, probe, mine)):
            assert found.suppressors == () == found.top(1)
            assert found.facts["nothing"] == mine.nothing is not None


def test_evidence_counts_prompts_not_rollouts() -> None:
    model, probe = organism("cliff"), organism_probe("cliff")
    mine = cases(10)
    twice = replace(
        mine,
        complied=mine.complied * 2,
        rollouts={**mine.rollouts, "complied": mine.rollouts["complied"] * 2},
    )
    once, found = attribute(model, probe, mine), attribute(model, probe, twice)
    np.testing.assert_allclose(found.grid("p"), once.grid("p"))
    np.testing.assert_allclose(found.grid("effect_q"), once.grid("effect_q"))
    assert (found.facts["n"], found.facts["n_clusters"]) == (20, 10)
    heads = contributions(model, probe, mine.complied).heads.double().numpy()
    np.testing.assert_allclose(once.grid("q"), benjamini_hochberg(sign_flip_p(heads)))


def test_a_random_probe_attributes_nothing_to_the_planted_heads_alone() -> None:
    """A direction that means nothing: the planted heads do not stand out along it."""
    model, mine = organism("cliff"), cases().complied[:6]
    drawn = torch.randn(20, model.d_model, generator=torch.Generator().manual_seed(0))
    ranks = []
    for weight in drawn:
        probe = LinearProbe(weight, 0.0).at(site=f"blocks.{PROBE_LAYER}.hook_resid_post")
        score = -contributions(model, probe, mine).heads.mean(0)
        ranks += [int((score >= score[head]).sum()) for head in PLANTED]
    assert 8 < np.mean(ranks) < 41
