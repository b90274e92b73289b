"""The same numbers in Hugging Face, TransformerLens and nnsight: values, logits, and under every intervention."""

import pytest
import torch
from torch import Tensor

from interp.errors import CliffscopeError
from interp.models.hooked_model import HookedModel
from interp.models.interop.nnsight import intervened
from interp.models.sites import Site
from tests.interp.models.interop.material import (
    ARCHITECTURES,
    KINDS,
    NOT_THE_SAME,
    TEXTS,
    TOLERANCE,
    batch,
    changeable,
    direction,
    hooked,
    sites_of,
)
from tests.interp.models.interop.tracing import traced, traced_values

BOTH = [name for name in ARCHITECTURES if name not in NOT_THE_SAME]


def expected_logits(model: HookedModel) -> Tensor:
    return torch.cat([model.logits([transcript], range(len(transcript)))[0] for transcript in TEXTS])


@torch.no_grad()
def in_transformer_lens(model: HookedModel, bridge, interventions, side: str = "right") -> Tensor:
    ids, mask = batch(TEXTS, side)
    hooks = model.as_transformer_lens_hooks(*interventions, transcripts=TEXTS)
    return bridge.run_with_hooks(ids, fwd_hooks=hooks, attention_mask=mask)[mask.bool()]


@pytest.mark.parametrize("name", BOTH)
def test_values_at_all_sites_agree(name: str) -> None:
    model = hooked(name)
    sites, ids = sites_of(model), torch.tensor([TEXTS[0].input_ids])
    captured = model.capture([TEXTS[0]], sites, range(len(TEXTS[0])))
    with torch.no_grad():
        logits, cache = model.as_transformer_lens().run_with_cache(ids)
    seen = traced_values(model, sites, ids)
    expected = expected_logits(model)[: len(TEXTS[0])]
    for site in sites:
        shape = captured[site][0].shape
        torch.testing.assert_close(cache[site][0].reshape(shape), captured[site][0], **TOLERANCE)
        torch.testing.assert_close(seen[site][0].reshape(shape), captured[site][0], **TOLERANCE)
    torch.testing.assert_close(logits[0], expected, **TOLERANCE)
    torch.testing.assert_close(seen["logits"][0], expected, **TOLERANCE)


@pytest.mark.parametrize("name", BOTH)
def test_every_intervention_does_the_same(name: str) -> None:
    model = hooked(name)
    bridge, lm = model.as_transformer_lens(), model.as_nnsight()
    plain = expected_logits(model)
    for kind in KINDS:
        interventions = KINDS[kind](model)
        with model.intervene(*interventions):
            expected = expected_logits(model)
        assert (expected - plain).abs().max() > 1e-3, f"{kind} does nothing: the test shows nothing"
        for side in ("right", "left") if kind == "at every site" else ("right",):
            found = in_transformer_lens(model, bridge, interventions, side)
            torch.testing.assert_close(found, expected, **TOLERANCE, msg=lambda m, k=kind: f"TransformerLens, {k}: {m}")
            found = traced(intervened(lm, model, interventions, TEXTS), *batch(TEXTS, side))
            torch.testing.assert_close(found, expected, **TOLERANCE, msg=lambda m, k=kind: f"nnsight, {k}: {m}")
    torch.testing.assert_close(in_transformer_lens(model, bridge, []), plain, **TOLERANCE)
    torch.testing.assert_close(traced(lm, *batch(TEXTS)), plain, **TOLERANCE)


@pytest.mark.slow  # sae-lens takes its time to import
def test_latents_do_the_same() -> None:
    from interp.models.interop.frozen import frozen
    from interventions.latents import ClampLatents, Latents
    from tests.interventions.latents.material import random_sae

    model = hooked("qwen3")
    latents = Latents(random_sae("topk"), "blocks.1.hook_resid_post", "random", model.name, model.fingerprint)
    plain, bridge, lm = expected_logits(model), model.as_transformer_lens(), model.as_nnsight()
    for scope in ("all", "from-edge"):
        clamped = ClampLatents(latents, [3, 7], 2.0, scope=scope)
        with model.intervene(clamped):
            expected = expected_logits(model)
        assert (expected - plain).abs().max() > 1e-3
        torch.testing.assert_close(in_transformer_lens(model, bridge, [clamped]), expected, **TOLERANCE)
        for steered in (
            intervened(lm, model, [clamped], TEXTS),
            frozen(lm, [clamped], *batch(TEXTS), TEXTS),
        ):
            torch.testing.assert_close(traced(steered, *batch(TEXTS)), expected, **TOLERANCE)


@pytest.mark.parametrize("name", BOTH)
def test_a_change_at_each_site_has_the_same_effect(name: str) -> None:
    """One by one: an alias that carries the right value may still be the wrong place to change it."""
    from interventions.steering.along_direction import AddDirection

    model = hooked(name)
    bridge, lm = model.as_transformer_lens(), model.as_nnsight()
    for site in sites_of(model):
        if not changeable(model, site):
            continue
        steered = AddDirection(direction(model), 1.0, sites=[site], scope="edge")
        with model.intervene(steered):
            expected = expected_logits(model)
        found = in_transformer_lens(model, bridge, [steered])
        torch.testing.assert_close(found, expected, **TOLERANCE, msg=lambda m, s=site: f"TransformerLens, {s}: {m}")
        found = traced(intervened(lm, model, [steered], TEXTS), *batch(TEXTS))
        torch.testing.assert_close(found, expected, **TOLERANCE, msg=lambda m, s=site: f"nnsight, {s}: {m}")


@pytest.mark.parametrize("name", sorted(NOT_THE_SAME))
def test_what_transformer_lens_computes_differently_is_refused(name: str) -> None:
    """If one of these begins to pass, TransformerLens was mended: take the architecture off the table."""
    model = hooked(name)
    with pytest.raises(CliffscopeError, match=r"TransformerLens computes \w+ differently: its logits are off by 0\.\d"):
        model.as_transformer_lens()
    ids = torch.tensor([TEXTS[0].input_ids])
    with torch.no_grad():
        logits = model.as_transformer_lens(check=False)(ids)[0]
    assert (logits - expected_logits(model)[: len(TEXTS[0])]).abs().max() > 1e-3
    seen = traced_values(model, sites_of(model), ids)
    torch.testing.assert_close(seen["logits"][0], expected_logits(model)[: len(TEXTS[0])], **TOLERANCE)


def test_a_site_that_an_architecture_lacks_is_explained_in_all_three() -> None:
    from interventions.steering.along_direction import AddDirection

    model = hooked("gpt_neox")
    steered = AddDirection(direction(model), 1.0, sites=["blocks.1.hook_resid_mid"])
    message = r"GPTNeoXForCausalLM has no hook_resid_mid: .* in parallel"
    with pytest.raises(CliffscopeError, match=message):
        model.places.find(Site(1, "hook_resid_mid"))
    with pytest.raises(CliffscopeError, match=message):
        model.as_transformer_lens_hooks(steered)
    with pytest.raises(CliffscopeError, match=message):
        intervened(model.as_nnsight(), model, [steered])
