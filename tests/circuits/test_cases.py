"""Cases: which rollouts, where they are cut, and when there is nothing to explain."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from circuits.cases import Cases, to_explain
from circuits.rank import RankOptions, rank_heads
from interp.errors import CliffscopeError
from interp.transcripts.positions import EDGE
from tests.circuits.material import PROBE_LAYER, organism, organism_probe, organism_rollouts


def test_the_organism_with_a_cliff_has_something_to_explain() -> None:
    model, rollouts = organism("cliff"), organism_rollouts("cliff")
    cases = Cases.of(model, organism_probe("cliff"), rollouts)
    assert cases.nothing is None and cases.cliff is not None and cases.cliff.mean > 0.5
    for outcome in ("complied", "refused", "benign"):
        expected = [rollout for rollout in rollouts if rollout.outcome == outcome]
        assert list(cases.rollouts[outcome]) == expected
        transcripts = getattr(cases, outcome)
        assert [t.id for t in transcripts] == [rollout.id for rollout in expected]
        assert cases.prompts(outcome) == tuple(rollout.prompt for rollout in expected)
        for transcript, rollout in zip(transcripts, expected, strict=True):
            whole = model.transcripts().build(rollout)
            assert transcript.input_ids == whole.input_ids[: whole.edge + 1]
            assert transcript.edge == len(transcript) - 1 == whole.edge


def test_what_is_cut_off_does_not_matter_at_the_edge() -> None:
    model = organism("cliff")
    whole = model.transcripts().build_all(organism_rollouts("cliff")[:4])
    site = "blocks.5.hook_resid_post"
    values = [model.capture(t, [site], [EDGE])[site] for t in (whole, [t.until_edge() for t in whole])]
    torch.testing.assert_close(values[0], values[1], atol=1e-4, rtol=1e-4)


def test_the_aligned_organism_has_nothing_to_explain() -> None:
    cases = Cases.of(organism("aligned"), organism_probe("aligned"), organism_rollouts("aligned"))
    assert cases.nothing == "the model answered none of the 64 harmful prompts"
    assert cases.cliff is None and cases.complied == ()


EARLY = 1
"""A layer before the planted heads: a probe there tells what is harmful, at the edge too, and shows no cliff."""


def test_what_a_probe_misses_the_refusal_logit_shows() -> None:
    model, probe = organism("cliff"), organism_probe("cliff", EARLY)
    cases = Cases.of(model, probe, organism_rollouts("cliff"))
    assert cases.no_fall is not None and "not clearly above" in cases.no_fall
    assert cases.cliff is not None and "does not read whether they are refused" in cases.cliff.evidence
    assert cases.nothing is None
    found = rank_heads(model, probe, cases, RankOptions(method="ablation"))
    assert {str(head) for head in found.suppressors} == {"3.1", "4.5"}
    assert "The probe itself shows no cliff" in found.evidence
    # Attribution explains the fall of this probe's score, and there is none.
    by_probe = rank_heads(model, probe, cases, RankOptions(method="attribution"))
    assert by_probe.facts["nothing"] == cases.no_fall and not by_probe.suppressors


@pytest.mark.parametrize("drop", ["refused", "benign"])
def test_without_a_control_the_probe_alone_is_asked(drop: str) -> None:
    rollouts = [rollout for rollout in organism_rollouts("cliff") if rollout.outcome != drop]
    cases = Cases.of(organism("cliff"), organism_probe("cliff", EARLY), rollouts)
    assert cases.nothing is not None and cases.nothing == cases.no_fall


def test_rollouts_that_another_model_answered_are_not_explained_in_this_one() -> None:
    cases = Cases.of(organism("aligned"), organism_probe("aligned", EARLY), organism_rollouts("cliff"))
    assert len(cases.complied) > 20  # and aligned would refuse each of them
    assert cases.nothing is not None and cases.nothing == cases.no_fall


@pytest.mark.parametrize("layer", [EARLY, PROBE_LAYER])
@pytest.mark.parametrize("keep_benign", [True, False])
def test_benign_rollouts_in_the_place_of_harmful_ones_show_no_cliff(keep_benign: bool, layer: int) -> None:
    rollouts = organism_rollouts("aligned")
    benign = [rollout for rollout in rollouts if rollout.outcome == "benign"]
    feigned = [replace(rollout, harmful=True, id=f"feigned {rollout.id}") for rollout in benign[: len(benign) // 2]]
    others = [r for r in rollouts if r.outcome == "refused" or (keep_benign and r in benign[len(benign) // 2 :])]
    cases = Cases.of(organism("aligned"), organism_probe("aligned", layer), [*feigned, *others])
    assert len(cases.complied) == len(feigned)
    assert cases.nothing is not None and "not clearly above" in cases.nothing


def test_the_limit_bounds_each_outcome_and_the_seed_draws() -> None:
    model, rollouts, probe = organism("cliff"), organism_rollouts("cliff"), organism_probe("cliff")
    drawn = [Cases.of(model, probe, rollouts, limit=10, seed=seed) for seed in (0, 0, 1)]
    ids = [[t.id for t in cases.complied] for cases in drawn]
    assert [len(cases.complied) for cases in drawn] == [10, 10, 10] == [len(cases.benign) for cases in drawn]
    assert ids[0] == ids[1] != ids[2]
    order = [rollout.id for rollout in rollouts]
    assert ids[0] == sorted(ids[0], key=order.index)
    assert drawn[0].skipped["more than 10 complied"] == sum(r.outcome == "complied" for r in rollouts) - 10


def test_rollouts_without_an_edge_are_counted_and_left_out() -> None:
    model, rollouts, probe = organism("cliff"), list(organism_rollouts("cliff")), organism_probe("cliff")
    complied = [rollout for rollout in rollouts if rollout.outcome == "complied"]
    odd = [
        replace(complied[0], id="empty", thinking=""),
        replace(complied[0], id="unjudged", refused=None),
        replace(complied[0], id="unclosed", response=None, refused=None),
        replace(complied[0], id="benign refused", harmful=False, refused=True),
    ]
    cases = Cases.of(model, probe, [*rollouts, *odd])
    assert cases.skipped == {"thinking empty": 1, "outcome unknown": 2, "outcome benign_refused": 1}
    assert len(cases.complied) == len(complied)
    nothing = Cases.of(model, probe, [odd[0], *(r for r in rollouts if r.outcome == "benign")])
    assert nothing.nothing == "none of the 1 complied rollouts has thinking that ends"


def test_a_probe_of_another_model_is_refused() -> None:
    probe = organism_probe("cliff").at(fingerprint={"d_model": "64"})
    with pytest.raises(CliffscopeError, match="d_model 64 there, 128 here"):
        Cases.of(organism("cliff"), probe, organism_rollouts("cliff"))


def test_what_is_to_be_explained() -> None:
    assert to_explain(np.array([-3.0, -5.0]), np.array([2.0, 4.0])) == pytest.approx(7.0)
    assert to_explain(torch.tensor([-3.0, -5.0]), torch.empty(0)) == pytest.approx(4.0)
    assert np.isnan(to_explain(np.array([5.0]), np.array([4.0])))
    assert np.isnan(to_explain(np.array([1.0]), np.empty(0)))
    assert np.isnan(to_explain(np.empty(0), np.array([4.0])))
