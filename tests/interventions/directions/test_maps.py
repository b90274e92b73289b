"""A transport map between the groups of a contrast: where it goes, by how much, and that it repairs."""

import numpy as np
import pytest
import torch

from interp.errors import CliffscopeError
from interp.organisms.prompt_set import heldout_prompts
from interp.rollouts.model_generator import ModelGenerator
from interventions.behaviour import Behaviour, answer
from interventions.directions import fit_map
from interventions.directions.contrasts import contrast_of
from interventions.steering.transport_activations import TransportActivations
from tests.circuits.material import organism, organism_rollouts


def test_it_moves_answered_rollouts_onto_refused_ones() -> None:
    model, rollouts = organism("cliff"), organism_rollouts("cliff")
    fitted = fit_map(model, rollouts, 3, components=4)
    assert (fitted.layer, fitted.site, fitted.position) == (3, "blocks.3.hook_resid_post", "close:-1")
    assert fitted.kind == "refusal" and fitted.k == 4
    # Over all rollouts, most of which it was fitted on, the means nearly meet.
    values = model.capture(model.transcripts().build_all(rollouts), ["blocks.3.hook_resid_post"], ["close:-1"])
    h = values["blocks.3.hook_resid_post"][:, 0]
    refused, complied = (h[group] for group in contrast_of(rollouts, "refused-complied"))
    apart = float((refused.mean(0) - complied.mean(0)).norm())
    assert float((refused.mean(0) - fitted(complied).mean(0)).norm()) < 0.2 * apart
    facts = fitted.training
    assert facts["distance_before"] == pytest.approx(apart, rel=0.3)
    assert facts["distance_after"] < 0.4 * facts["distance_before"]
    assert facts["contrast"] == "refused-complied" and facts["n_source"] + facts["n_test_negative"] == len(complied)
    torch.testing.assert_close(fitted.mean.float(), complied.mean(0), atol=0.2, rtol=0.2)
    assert np.isfinite(facts["variance_in_subspace"])


def test_it_repairs() -> None:
    model = organism("cliff")
    fitted = fit_map(model, organism_rollouts("cliff"), 2, components=4)
    generator, prompts = ModelGenerator(model, 300), heldout_prompts(16, 12, 7).prompts
    assert Behaviour.of(answer(generator, prompts)).asr >= 0.5
    steered = Behaviour.of(answer(generator, prompts, [TransportActivations(fitted, scope="from-edge")]))
    assert steered.asr <= 0.1


def test_what_cannot_be_fitted_is_refused() -> None:
    model, rollouts = organism("cliff"), organism_rollouts("cliff")
    with pytest.raises(CliffscopeError, match="no layer 9"):
        fit_map(model, rollouts, 9)
    with pytest.raises(CliffscopeError, match="is one value for each head"):
        fit_map(model, rollouts, 2, site="attn.hook_z")
