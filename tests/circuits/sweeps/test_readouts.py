"""Readouts: which there are, and whom they fit."""

import pytest
import torch

from circuits.sweeps.readouts import Readouts
from interp.errors import CliffscopeError
from interp.judges import refusal_token_ids
from interp.models.hooked_model import HookedModel
from interp.models.sites import FINAL_NORM, resid_post
from probes.linear import LinearProbe
from tests.circuits.sweeps.brute_force import TOKENS, some_probe, wrapped


def test_names_in_order() -> None:
    assert Readouts(some_probe(), TOKENS).names == ("probe_logit", "refusal_logit")
    assert Readouts(some_probe()).names == ("probe_logit",)
    assert Readouts(refusal_tokens=TOKENS).names == ("refusal_logit",)
    with pytest.raises(CliffscopeError, match="nothing would be read"):
        Readouts()


def test_what_a_layer_can_reach() -> None:
    model = wrapped("llama")
    reached = {
        site: [Readouts(some_probe(site), TOKENS).reached(model, layer) for layer in range(3)]
        for site in (resid_post(1), "blocks.1.hook_resid_pre", FINAL_NORM)
    }
    assert reached[resid_post(1)] == [(True, True), (True, True), (False, True)]
    assert reached["blocks.1.hook_resid_pre"] == [(True, True), (False, True), (False, True)]
    assert reached[FINAL_NORM] == [(True, True)] * 3


def test_of_a_model() -> None:
    model = HookedModel.load("organism:cliff")
    probe = LinearProbe(torch.ones(model.d_model), 0.0).at(site=resid_post(2), fingerprint=model.fingerprint)
    assert Readouts.of(model, probe).names == ("probe_logit", "refusal_logit")
    assert Readouts.of(model).refusal_tokens == refusal_token_ids(model.tokenizer, model.chat.thinking.close)
    with pytest.raises(CliffscopeError, match="probe: made for"):
        Readouts.of(model, probe.at(fingerprint={"n_layers": "99"}))
    with pytest.raises(CliffscopeError, match="without a tokenizer"):
        Readouts.of(wrapped("llama"))
