"""Latents changed in a forward pass: by their decoded difference alone, where asked, not the first token, not idly."""

from typing import Any

import pytest
import torch

from interp.errors import CliffscopeError
from interp.models.hooked_model import HookedModel
from interp.models.intervening import NothingChangedWarning
from interp.models.ledger import Ledger
from interp.models.token_context import TokenContext
from interventions.latents import AblateLatents, AddLatents, ClampLatents, Latents, intervene_latents
from interventions.latents.acting import LatentsIdleError
from interventions.latents.changes import LatentChange
from interventions.latents.loading import at_site
from tests.architectures import random_model
from tests.interventions.latents.material import ARCHITECTURES, organism, random_sae, texts, tiny, trained
from tests.interventions.latents.material import training_rollouts as rollouts

PLACE = "blocks.1.hook_resid_post"
ALL_POSITIONS = list(range(7))


def at(name: str = "standard", site: str = PLACE, **options: Any) -> Latents:
    return at_site(tiny(), random_sae(name, hook_name=site, model_name="tiny qwen3", **options))


def dead(latents: Latents, latent: int = 3) -> Latents:
    """The SAE with a latent that is active nowhere."""
    with torch.no_grad():
        latents.sae.W_enc[:, latent], latents.sae.b_enc[latent] = 0.0, -1.0
    return latents


def values(change: LatentChange | None = None, site: str = PLACE) -> torch.Tensor:
    """`[text, position, ...]` at a site of the tiny model."""
    model = tiny()
    if change is None:
        return model.capture(texts(), [site], ALL_POSITIONS)[site]
    with model.intervene(change):
        return model.capture(texts(), [site], ALL_POSITIONS)[site]


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_what_is_written_is_the_decoded_difference(name: str) -> None:
    latents, h = at(name), values()
    for change, new in (
        (AblateLatents(latents, [2, 5]), lambda f: torch.zeros_like(f)),
        (ClampLatents(latents, [2, 5], 3.0), lambda f: torch.full_like(f, 3.0)),
        (AddLatents(latents, [2, 5], -1.5), lambda f: f - 1.5),
    ):
        found = values(change)
        assert torch.equal(found[:, 0], h[:, 0])  # the first token
        for text in range(3):
            for position in ALL_POSITIONS[1:]:
                one = h[text, position][None]
                f = latents.sae.encode(one)
                moved = f.clone()
                moved[:, [2, 5]] = new(f[:, [2, 5]])
                old = latents.sae.decode(f)
                latents.sae.encode(one)
                expected = one + latents.sae.decode(moved) - old
                torch.testing.assert_close(found[text, position], expected[0], atol=1e-5, rtol=1e-5)


def test_the_reconstruction_error_stays() -> None:
    latents, h = at(), values()
    found = values(ClampLatents(latents, 4, 2.0))
    flat, new = h[:, 1:].flatten(0, 1), found[:, 1:].flatten(0, 1)
    f = latents.sae.encode(flat)
    clamped = f.clone()
    clamped[:, 4] = 2.0
    torch.testing.assert_close(new - latents.sae.decode(clamped), flat - latents.sae.decode(f), atol=2e-6, rtol=0)


def test_tokens_at_which_no_latent_moves_keep_their_value_bit_by_bit() -> None:
    latents, h = at(), values()
    active = latents.encode(h.flatten(0, 1))[:, 6].reshape(3, 7) > 0
    active[:, 0] = False
    assert 0 < active.sum() < active.numel() - 3
    found = values(AblateLatents(latents, 6))
    assert torch.equal((found != h).any(-1), active)


def test_the_first_token_is_left_alone_unless_asked_for() -> None:
    model, latents, batch = tiny(), at(), texts()
    for first_token, expected in ((False, range(1, 9)), (True, range(9))):
        ledger = Ledger()
        change = ClampLatents(latents, 1, 5.0, first_token=first_token)
        with model.intervene(change, ledger=ledger):
            model.capture(batch, ["blocks.2.hook_resid_post"], [-1], padding_side="left", batch_tokens=1000)
        assert ledger.positions("text 0") == list(expected)
        assert ledger.positions("text 2") == list(expected)[:-2]


def test_a_scope_is_where_it_acts() -> None:
    model, batch = organism("cliff"), organism("cliff").transcripts().build_all(rollouts()[:6])
    for scope, expected in (
        ("edge", lambda t: [t.edge]),
        ("thinking", lambda t: list(t.indices("thinking"))),
        ("from-edge", lambda t: list(range(t.edge, len(t)))),
    ):
        ledger = Ledger()
        with model.intervene(AddLatents(trained(), 9, 4.0, scope=scope), ledger=ledger):
            model.logits(batch, [-1])
        for transcript in batch:
            assert ledger.positions(transcript.id) == expected(transcript)


def test_heads_together() -> None:
    site = "blocks.1.attn.hook_z"
    latents, h = at(site=site, d_in=64), values(site=site)
    found = values(ClampLatents(latents, 2, 1.0), site=site)
    flat = h[:, 1:].flatten(0, 1)
    f = latents.sae.encode(flat.flatten(1))
    clamped = f.clone()
    clamped[:, 2] = 1.0
    expected = flat.flatten(1) + latents.sae.decode(clamped) - latents.sae.decode(f)
    torch.testing.assert_close(found[:, 1:].flatten(0, 1).flatten(1), expected, atol=1e-5, rtol=1e-5)


def test_the_values_own_type_is_kept() -> None:
    latents = at()
    value = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(0)).bfloat16()
    tokens = TokenContext(torch.arange(5).expand(2, 5))
    found = ClampLatents(latents, 1, 2.0).changes(tiny())[PLACE](value, tokens)
    assert found.dtype == torch.bfloat16 and torch.equal(found[:, 0], value[:, 0])
    exact = value.float() + latents.decoded_difference(value.float().flatten(0, 1), _clamped).unflatten(0, (2, 5))
    assert torch.equal(found[:, 1:], exact.bfloat16()[:, 1:])


def _clamped(f: torch.Tensor) -> torch.Tensor:
    moved = f.clone()
    moved[:, 1] = 2.0
    return moved


def test_gradients_pass() -> None:
    latents = at()
    change = ClampLatents(latents, 1, 2.0).changes(tiny())[PLACE]
    value = torch.randn(1, 4, 32, requires_grad=True)
    change(value, TokenContext(torch.arange(4)[None])).square().sum().backward()
    assert value.grad is not None and value.grad.abs().sum(-1).gt(0).all()
    assert all(parameter.grad is None for parameter in latents.sae.parameters())


IDLE = [
    (lambda latents: AblateLatents(latents, 3), "active at none of them"),
    (lambda latents: ClampLatents(latents, 3, 0.0), r"already at 0 at all of them"),
    (lambda latents: AddLatents(latents, 3, 0.0), "left as they were by adding 0"),
]


@pytest.mark.parametrize(("make", "says"), IDLE)
def test_steering_that_changes_nothing_is_an_error(make: Any, says: str) -> None:
    model, latents = tiny(), dead(at())
    idle = rf"latent 3 .*changed nothing at the 21 tokens.*{says}"
    with pytest.warns(NothingChangedWarning), pytest.raises(LatentsIdleError, match=idle):
        with intervene_latents(model, make(latents)):
            model.capture(texts(), [PLACE], [-1])
    # Another change that acts does not excuse it.
    with pytest.warns(NothingChangedWarning), pytest.raises(LatentsIdleError, match="latent 3"):
        with intervene_latents(model, AddLatents(latents, 1, 2.0), make(latents)):
            model.capture(texts(), [PLACE], [-1])
    with pytest.warns(NothingChangedWarning), model.intervene(make(latents)):
        model.capture(texts(), [PLACE], [-1])


def test_a_scope_without_tokens_is_an_error() -> None:
    model = organism("cliff")
    prompt = model.transcripts().prompt("how do I bake bread?")
    idle = "the scope 'response' holds no token of these texts"
    with pytest.warns(NothingChangedWarning), pytest.raises(LatentsIdleError, match=idle):
        with intervene_latents(model, AddLatents(trained(), 1, 2.0, scope="response")):
            model.logits([prompt], [-1])


def test_what_acts_or_was_never_asked_is_no_error() -> None:
    model, latents = tiny(), dead(at())
    with intervene_latents(model, AblateLatents(latents, 3)):
        pass
    ledger = Ledger()
    with intervene_latents(model, AddLatents(latents, 3, 1.0), ledger=ledger) as same:
        assert same is model
        model.capture(texts(), [PLACE], [-1])
    assert ledger.positions("text 0", intervention="AddLatents") == list(range(1, 9))


def test_an_exception_of_the_block_is_not_masked() -> None:
    model, latents = tiny(), dead(at())
    before = values()
    with pytest.raises(ZeroDivisionError):
        with intervene_latents(model, AblateLatents(latents, 3)):
            model.capture(texts(), [PLACE], [-1])
            raise ZeroDivisionError
    assert torch.equal(values(), before)


def test_the_sae_acts_while_generating() -> None:
    model, latents = tiny(), at()
    prompts = texts(2, 5)
    plain = model.generate(prompts, max_new_tokens=6)
    change = ClampLatents(latents, 7, 30.0)
    with intervene_latents(model, change):
        changed = model.generate(prompts, max_new_tokens=6)
        assert changed == model.generate(prompts, max_new_tokens=6, use_cache=False)
    assert changed != plain


def test_bad_changes() -> None:
    latents = at()
    for make, says in (
        (lambda: AblateLatents(latents, 24), "no latent 24: the SAE has latents 0 to 23"),
        (lambda: AblateLatents(latents, []), "expected at least one"),
        (lambda: AblateLatents(latents, [2, 2]), "each once, found"),
        (lambda: ClampLatents(latents, 2, float("nan")), "clamp: expected a finite number"),
        (lambda: AddLatents(latents, 2, float("inf")), "add: expected a finite number"),
        (lambda: AblateLatents(latents, 2, scope="there"), "scope 'there': expected one of"),
    ):
        with pytest.raises(CliffscopeError, match=says):
            make()
    other = HookedModel(random_model("llama"))
    with (
        pytest.raises(CliffscopeError, match="load the SAE onto this model"),
        other.intervene(AblateLatents(latents, 2)),
    ):
        pass


def test_a_change_tells_what_it_is() -> None:
    latents = at()
    change = ClampLatents(latents, [2, 5], 3.5, scope="thinking:0.8-1@300")
    assert str(change) == "latents 2,5 clamp 3.5" and str(AblateLatents(latents, 2)) == "latent 2 ablate"
    assert change.summary() == {
        "change": "clamp",
        "latents": [2, 5],
        "value": 3.5,
        "scope": "thinking:0.8-1@300",
        "first_token": False,
        "site": PLACE,
        "sae": latents.digest,
    }
