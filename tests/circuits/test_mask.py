"""A mask out of a ranking: which heads, with what provenance, measured on which texts."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from circuits.cases import Cases
from circuits.head_scores import HeadScores
from circuits.mask import build_mask
from circuits.rank import RankOptions, rank_heads
from interp.errors import CliffscopeError
from interp.judges.edge_logit import refusal_logit, refusal_token_ids
from interp.transcripts.positions import EDGE
from interventions.heads import Head
from interventions.masks import HeadMask
from tests.circuits.material import organism, organism_probe, organism_rollouts


@pytest.fixture(scope="module")
def scores() -> HeadScores:
    model, probe = organism("cliff"), organism_probe("cliff")
    cases = Cases.of(model, probe, organism_rollouts("cliff"), limit=12)
    return rank_heads(model, probe, cases, RankOptions(method="ablation", scope="all", seed=2))


def test_by_default_all_suppression_heads_are_silenced(scores: HeadScores) -> None:
    mask = build_mask(organism("cliff"), scores)
    expected = torch.ones(6, 8)
    for head in scores.suppressors:
        expected[head] = 0
    assert torch.equal(mask.scale, expected) and {Head(3, 1), Head(4, 5)} <= set(mask.heads)
    assert not mask.renormalize and (mask.model, mask.method) == ("organism:cliff", "ablation")


def test_its_facts_say_how_the_heads_were_found(scores: HeadScores, tmp_path: Path) -> None:
    chosen = scores.top(3)
    mask = build_mask(organism("cliff"), scores, chosen, gamma=0.25, renormalize=True)
    assert {float(mask.scale[head]) for head in chosen} == {0.25} and mask.renormalize
    by_name = scores.table.set_index("name")
    names = [str(head) for head in chosen]
    assert mask.facts["ranked"] == names
    assert mask.facts["scores"] == {name: float(by_name.loc[name, "score"]) for name in names}
    assert mask.facts["threshold"] == min(mask.facts["scores"].values())
    assert mask.facts["suppresses"] == [name for name in names if by_name.loc[name, "suppresses"]]
    ranking = mask.facts["ranking"]
    assert {"scope": "all", "gamma": 0.0, "seed": 2, "n": 12}.items() <= ranking.items()
    assert ranking["to_explain"] == scores.facts["to_explain"]
    mask.save(tmp_path / "mask.safetensors")
    assert HeadMask.load(tmp_path / "mask.safetensors").facts == mask.facts


def test_its_effect_is_measured_on_rollouts_of_the_ranking(scores: HeadScores) -> None:
    model = organism("cliff")
    mask = build_mask(model, scores)
    assert mask.expected is not None
    examples = {tuple(ids) for ids in scores.facts["examples"]}
    assert {sequence.input_ids for sequence in mask.expected.sequences} == examples and len(examples) == 3
    tokens = refusal_token_ids(model.tokenizer, model.chat.thinking.close)
    cases = Cases.of(model, organism_probe("cliff"), organism_rollouts("cliff"), limit=12)
    for sequence in mask.expected.sequences:
        (text,) = [text for text in cases.complied if text.input_ids == sequence.input_ids]
        before = refusal_logit(model.logits([text], [EDGE])[:, 0], tokens)
        with model.intervene(mask):
            after = refusal_logit(model.logits([text], [EDGE])[:, 0], tokens)
        assert sequence.refusal_logit == pytest.approx((float(before), float(after)), abs=1e-3)


def test_a_ranking_without_examples_gives_a_mask_measured_on_the_projects_own_texts(scores: HeadScores) -> None:
    facts = {name: fact for name, fact in scores.facts.items() if name != "examples"}
    mask = build_mask(organism("cliff"), replace(scores, facts=facts))
    assert mask.expected is not None and len(mask.expected.sequences) == 3
    assert mask.check(organism("cliff")).ok


def test_what_cannot_be_masked_is_refused(scores: HeadScores) -> None:
    model = organism("cliff")
    with pytest.raises(CliffscopeError, match=r"made for organism:cliff, not for organism:cliff \(d_model 7 there"):
        build_mask(model, replace(scores, fingerprint={"d_model": "7"}))
    nothing = HeadScores.nothing("ablation", model, "the model answered none")
    with pytest.raises(CliffscopeError, match=r"none to mask\. Nothing to explain: the model answered none"):
        build_mask(model, nothing)
    with pytest.raises(CliffscopeError, match="masks nothing"):
        build_mask(model, scores, gamma=1.0)
