"""An attached mask is the same as changed weights; it changes nothing else and leaves nothing behind."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from interp.errors import CliffscopeError
from interp.models.hooked_model import HookedModel
from interventions.masks.attached_mask import MaskedLayer
from interventions.masks.head_mask import HeadMask
from tests.architectures import CONFIGS, random_model
from tests.interventions.masks.material import (
    TOLERANCE,
    logits,
    n_hooks,
    output_projections,
    random_ids,
    random_scale,
    same_state,
    state_of,
    texts,
    with_scaled_weights,
)


@pytest.mark.parametrize("name", list(CONFIGS))
def test_attached_is_the_same_as_scaled_weights(name: str) -> None:
    model = random_model(name)
    scale = random_scale()
    expected, before, state = logits(with_scaled_weights(model, scale)), logits(model), state_of(model)
    for given_model in (model, HookedModel(model)):
        with HeadMask(scale).attached(given_model) as attached:
            torch.testing.assert_close(logits(model), expected, **TOLERANCE)
            assert n_hooks(model) == len({layer for layer, _ in HeadMask(scale).heads})
            assert set(attached.calls.values()) == {1}
        assert n_hooks(model) == 0
    assert torch.equal(logits(model), before) and not torch.allclose(before, expected, atol=1e-3)
    assert same_state(model, state)


def test_as_an_intervention_it_does_the_same() -> None:
    model = HookedModel(random_model("qwen3"))
    mask = HeadMask(random_scale())
    transcripts = texts()
    with mask.attached(model):
        expected = model.logits(transcripts, [-1])
        written = model.generate(transcripts, max_new_tokens=6)
    with model.intervene(mask):
        assert torch.equal(model.logits(transcripts, [-1]), expected)
        assert model.generate(transcripts, max_new_tokens=6) == written
    with (
        pytest.raises(CliffscopeError, match="not for"),
        HookedModel(random_model("gpt2")).intervene(HeadMask(torch.zeros(2, 2))),
    ):
        pass


@pytest.mark.parametrize("checkpointing", [False, True, "reentrant"])
@pytest.mark.parametrize("name", ["qwen3", "gpt2", "mixtral"])
def test_gradients_in_training_mode_are_those_of_scaled_weights(name: str, checkpointing: bool | str) -> None:
    """The embedding's gradient goes through every masked head; W_O's own is that of the scaled W_O times the scale."""
    model = random_model(name)
    scale = random_scale()
    reference = with_scaled_weights(model, scale)
    for trained in (model, reference):
        trained.train()  # attention dropout is 0 in these configurations, GPT-2's is not
        for module in trained.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        if checkpointing:
            options = {"use_reentrant": checkpointing == "reentrant"}
            # The first is the newer name of the second.
            names = ("activation_checkpointing_enable", "gradient_checkpointing_enable")
            next(getattr(trained, name) for name in names if hasattr(trained, name))(options)
            trained.enable_input_require_grads()
    with HeadMask(scale).attached(model) as attached:
        ids = random_ids()
        losses = [trained(input_ids=ids, labels=ids).loss for trained in (model, reference)]
        for loss in losses:
            loss.backward()
        assert set(attached.calls.values()) == {2 if checkpointing else 1}
    torch.testing.assert_close(*losses)
    for (key, mine), other in zip(model.named_parameters(), reference.parameters(), strict=True):
        expected = other.grad
        if any(mine is projection.weight for projection in output_projections(model)):
            layer = [projection.weight is mine for projection in output_projections(model)].index(True)
            factors = scale[layer].repeat_interleave(8 if name != "qwen3" else 16)
            expected = expected * (factors[:, None] if name == "gpt2" else factors)
        torch.testing.assert_close(mine.grad, expected, atol=2e-5, rtol=1e-4, msg=key)


def test_under_the_kv_cache_every_token_is_masked() -> None:
    model = random_model("qwen3")
    reference = with_scaled_weights(model, random_scale())
    options = {"max_new_tokens": 8, "do_sample": False, "attention_mask": torch.ones(2, 11, dtype=torch.long)}
    plain = model.generate(random_ids(), **options)
    with HeadMask(random_scale()).attached(model):
        written = model.generate(random_ids(), **options)
    assert torch.equal(written, reference.generate(random_ids(), **options))
    assert not torch.equal(written, plain)


def test_only_own_hooks_go_also_on_errors_and_masks_compose() -> None:
    model = random_model("qwen3")
    seen: list[int] = []
    handle = output_projections(model)[0].register_forward_pre_hook(lambda module, args: seen.append(1))
    first, second = random_scale(0), random_scale(1)
    once, twice = (logits(with_scaled_weights(model, scale)) for scale in (first, first * second))
    outer = HeadMask(first).attach(model)
    with pytest.raises(KeyError), HeadMask(second).attached(model):
        torch.testing.assert_close(logits(model), twice, atol=3e-5, rtol=0)
        raise KeyError
    torch.testing.assert_close(logits(model), once, **TOLERANCE)
    outer.remove()
    outer.remove()
    assert n_hooks(model) == 1 and len(seen) >= 2
    handle.remove()


def test_it_works_in_bfloat16() -> None:
    model = random_model("qwen3").to(torch.bfloat16)
    silent = torch.where(random_scale() == 0, 0.0, 1.0)
    with HeadMask(silent).attached(model) as attached:
        found = logits(model)
    assert attached.dtype == torch.bfloat16
    assert torch.equal(found, logits(with_scaled_weights(model, silent)))  # 0 and 1 are exact


def test_one_projection_in_two_layers_is_refused() -> None:
    model = random_model("qwen3")
    model.model.layers[1].self_attn.o_proj = model.model.layers[0].self_attn.o_proj
    mask = HeadMask(torch.tensor([[0.0, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]]))
    with pytest.raises(CliffscopeError, match="layers 0 and 1 share one output projection"):
        mask.attach(model)
    assert n_hooks(model) == 0


# ---- renormalize ----


def projection(width: int, d_model: int, bias: bool, seed: int) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(width, d_model, bias=bias)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.sampled_from([0.0, 1.0, 0.3, -2.0]), min_size=2, max_size=6),
    st.booleans(),
    st.integers(0, 1000),
)
def test_renormalized_each_token_keeps_the_norm_of_what_is_written(factors: list[float], bias: bool, seed: int) -> None:
    n_heads, d_head, d_model = len(factors), 3, 13
    linear = projection(n_heads * d_head, d_model, bias, seed)
    z = torch.randn(3, 5, n_heads, d_head)
    layer = MaskedLayer(linear, torch.tensor(factors), renormalize=True)
    with torch.no_grad():
        masked = layer(z)
        written, before = (x.flatten(-2) @ linear.weight.T for x in (masked, z))
        alone = torch.cat([layer(row[None]) for row in z])
    plain = z * torch.tensor(factors)[:, None]
    if set(factors) == {0.0}:
        assert torch.equal(masked, torch.zeros_like(z))
        return
    torch.testing.assert_close(written.norm(dim=-1), before.norm(dim=-1), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(alone, masked, atol=1e-6, rtol=1e-5)  # no text depends on the texts beside it
    torch.testing.assert_close(  # the direction is that of the plain mask
        nn.functional.cosine_similarity(masked.flatten(-2), plain.flatten(-2), dim=-1), torch.ones(3, 5)
    )


@pytest.mark.parametrize("name", ["qwen3", "gpt2", "gpt_neox"])
def test_renormalized_attention_output_keeps_its_norm_in_a_model(name: str) -> None:
    model = random_model(name)
    scale = random_scale()
    reads: dict[str, list] = {"in": [], "out": []}
    layer = HeadMask(scale).heads[0].layer
    module = output_projections(model)[layer]
    mask = HeadMask(scale, renormalize=True)
    plain_weight = module.weight if isinstance(module, nn.Linear) else module.weight.T
    with mask.attached(model):
        before = module.register_forward_pre_hook(lambda m, args: reads["in"].append(args[0]), prepend=True)
        after = module.register_forward_hook(lambda m, args, out: reads["out"].append(out))
        logits(model)
        before.remove()
        after.remove()
    # The calls by which norms are measured are no calls of the module.
    assert len(reads["out"]) == 1
    bias = 0 if module.bias is None else module.bias
    with torch.no_grad():
        expected = (reads["in"][0] @ plain_weight.T).norm(dim=-1)
        torch.testing.assert_close((reads["out"][0] - bias).norm(dim=-1), expected, atol=1e-4, rtol=1e-4)


def test_renormalized_gradients_are_finite_also_where_nothing_is_written() -> None:
    for scale in (random_scale(), torch.tensor([[0.0] * 4, [1.0] * 4, [1.0] * 4])):
        model = copy.deepcopy(random_model("qwen3")).train()
        with HeadMask(scale, renormalize=True).attached(model):
            model(input_ids=random_ids(), labels=random_ids()).loss.backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
        assert output_projections(model)[1].weight.grad.abs().sum() > 0
