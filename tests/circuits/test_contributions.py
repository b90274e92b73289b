"""Contributions: complete on every listed architecture, and each equal to what a formula or a frozen ablation gives."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from circuits.contributions import Contributions, contributions
from interp.errors import CliffscopeError
from interp.models.hooked_model import HookedModel
from interp.transcripts import Transcript
from interventions.head_ablation import ScaleHeads
from probes.linear import LinearProbe
from tests.architectures import CONFIGS, PARALLEL, random_model

WIDTH = 32
SITES = ("blocks.1.hook_resid_post", "ln_final.hook_out", "blocks.2.hook_resid_pre")


@cache
def hooked(name: str) -> HookedModel:
    return HookedModel(random_model(name), name=name)


def texts(lengths: tuple[int, ...] = (20, 31, 7, 12), seed: int = 0) -> list[Transcript]:
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randint(3, 96, (n,), generator=generator).tolist() for n in lengths]
    return [Transcript.from_ids(f"text {number}", ids) for number, ids in enumerate(drawn)]


def probe_at(site: str, seed: int = 1) -> LinearProbe:
    return LinearProbe(torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed)), 0.3, site=site)


def read(model: HookedModel, site: str, position: int = -1) -> Contributions:
    return contributions(model, probe_at(site), texts(), position=position)


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("name", list(CONFIGS))
def test_all_contributions_add_up_to_the_probe_s_logit(name: str, site: str) -> None:
    model, probe = hooked(name), probe_at(site)
    found = read(model, site)
    logit = probe.logit(model.capture(texts(), [site], [-1])[site][:, 0])
    torch.testing.assert_close(found.logit, logit, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.parts.sum(1) * found.length, logit, rtol=1e-4, atol=1e-5)
    assert found.complete and float(found.error.max()) < 1e-5
    assert found.heads.shape == (4, 3, 4) and found.ids == tuple(t.id for t in texts())
    # Nothing is complete by being empty.
    assert float(found.heads.abs().min(0).values.median()) > 1e-3


@pytest.mark.parametrize("name", sorted(set(CONFIGS) - PARALLEL - {"gemma3", "olmo2"}))
def test_a_contribution_is_what_the_stream_loses_without_the_head(name: str) -> None:
    """Right after the attention nothing has reacted yet: ablation takes away the head's contribution and no more."""
    model, probe = hooked(name), probe_at("blocks.2.hook_resid_mid")
    found = contributions(model, probe, texts(), position=-1)
    for head in range(4):
        with model.intervene(ScaleHeads([(2, head)])):
            without = probe.logit(model.capture(texts(), [str(probe.site)], [-1])[str(probe.site)][:, 0])
        expected = (found.logit - without) / found.length
        torch.testing.assert_close(found.heads[:, 2, head], expected, rtol=1e-4, atol=1e-4)


def values(model: HookedModel, *sites: str) -> list[Tensor]:
    captured = model.capture(texts(), sites, [-1])
    return [captured[site][:, 0] for site in sites]


def head_outputs(model: HookedModel, layer: int) -> Tensor:
    """What every head of a layer writes before any norm, `[rollout, head, d_model]`, sliced from W_O by hand."""
    (z,) = values(model, f"blocks.{layer}.attn.hook_z")
    block: Any = model.places.blocks[layer]
    if model.name == "gpt2":
        weight = block.attn.c_proj.weight.T
    else:
        weight = (block.attention.dense if model.name == "gpt_neox" else block.self_attn.o_proj).weight
    width = weight.shape[1] // 4
    slices = [weight[:, head * width : (head + 1) * width].detach() for head in range(4)]
    return torch.stack([z[:, head] @ matrix.T for head, matrix in enumerate(slices)], dim=1)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_neox", "qwen3_moe"])
def test_at_the_residual_stream_a_contribution_is_its_formula(name: str) -> None:
    model, probe = hooked(name), probe_at("blocks.1.hook_resid_post")
    found = read(model, str(probe.site))
    for layer in range(3):
        expected = head_outputs(model, layer) @ probe.weight / probe.weight.norm()
        torch.testing.assert_close(found.heads[:, layer], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["gemma3", "olmo2"])
def test_a_norm_after_the_attention_acts_with_its_own_scale(name: str) -> None:
    model, probe = hooked(name), probe_at("blocks.1.hook_resid_post")
    found = read(model, str(probe.site))
    for layer in range(3):
        norm: Any = model.places.blocks[layer].post_attention_layernorm
        gain = (1 + norm.weight if name == "gemma3" else norm.weight).detach()
        each = head_outputs(model, layer)
        together = each.sum(1)
        eps = norm.eps if name == "gemma3" else norm.variance_epsilon
        scale = (together.square().mean(-1) + eps).rsqrt()
        expected = (each * gain * scale[:, None, None]) @ probe.weight / probe.weight.norm()
        torch.testing.assert_close(found.heads[:, layer], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3"])
def test_at_the_final_norm_the_scale_is_each_rollout_s_own(name: str) -> None:
    """The gradient of the frozen norm, taken by autograd with the scale held fixed."""
    model, probe = hooked(name), probe_at("ln_final.hook_out")
    (x,) = values(model, "blocks.2.hook_resid_post")
    norm: Any = model.places.final_norm
    centred = x - x.mean(-1, keepdim=True) if name == "gpt2" else x
    eps = norm.variance_epsilon if name == "llama" else norm.eps
    scale = (centred.square().mean(-1) + eps).rsqrt()
    gain = (1 + norm.weight if name == "gemma3" else norm.weight).detach()
    stream = x.clone().requires_grad_()
    frozen = stream - stream.mean(-1, keepdim=True) if name == "gpt2" else stream
    (frozen * scale[:, None] * gain @ probe.weight / probe.weight.norm()).sum().backward()
    assert stream.grad is not None
    found = read(model, str(probe.site))
    (embedding, mlp) = values(model, "blocks.0.hook_resid_pre", "blocks.1.hook_mlp_out")
    torch.testing.assert_close(found.embedding, (stream.grad * embedding).sum(-1), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found.mlps[:, 1], (stream.grad * mlp).sum(-1), rtol=1e-3, atol=1e-4)
    if name != "gemma3":
        expected = (head_outputs(model, 2) * stream.grad[:, None]).sum(-1)
        torch.testing.assert_close(found.heads[:, 2], expected, rtol=1e-3, atol=1e-4)


@given(
    lengths=st.lists(st.integers(3, 30), min_size=1, max_size=6),
    batch_tokens=st.sampled_from([1, 40, 100, 4096]),
    name=st.sampled_from(["qwen3", "gemma3", "gpt2"]),
    site=st.sampled_from(SITES[:2]),
)
@settings(max_examples=25, deadline=None)
def test_batch_and_padding_do_not_matter(lengths: list[int], batch_tokens: int, name: str, site: str) -> None:
    model, probe = hooked(name), probe_at(site)
    many = texts(tuple(lengths), seed=sum(lengths))
    together = contributions(model, probe, many, position=2, batch_tokens=batch_tokens)
    for row, text in enumerate(many):
        alone = contributions(model, probe, [text], position=2)
        torch.testing.assert_close(together.heads[row], alone.heads[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(together.mlps[row], alone.mlps[0], rtol=1e-4, atol=1e-4)
        assert together.ids[row] == text.id


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2"])
@pytest.mark.parametrize("site", SITES[:2])
def test_half_precision_is_complete_within_its_rounding(name: str, site: str) -> None:
    exact = read(hooked(name), site)
    rounded = contributions(HookedModel(random_model(name).to(torch.bfloat16)), probe_at(site), texts(), position=-1)
    assert rounded.complete and rounded.heads.dtype == torch.float32
    assert float((rounded.heads - exact.heads).abs().mean()) < 0.1 * float(exact.heads.abs().mean())


def test_an_ablated_head_contributes_nothing_and_the_rest_still_adds_up() -> None:
    model = hooked("llama")
    before = read(model, SITES[1])
    with model.intervene(ScaleHeads([(1, 2)])):
        after = read(model, SITES[1])
    assert (after.heads[:, 1, 2] == 0).all() and (before.heads[:, 1, 2] != 0).all()
    assert after.complete


@dataclass
class AddToStream:
    """Steering: adds a constant to the residual stream after the first block."""

    def changes(self, model: HookedModel) -> dict[str, Any]:
        return {"blocks.0.hook_resid_post": lambda value, tokens: value + 1}


def test_what_does_not_add_up_is_refused_by_name() -> None:
    model = hooked("llama")
    with model.intervene(AddToStream()), pytest.raises(CliffscopeError, match=r"parts of llama .*LlamaForCausalLM"):
        read(model, SITES[0])


def test_a_model_with_residual_multipliers_is_refused_by_name() -> None:
    """TransformerLens maps no attention output for it, which is multiplied before it is added."""
    config = transformers.GraniteConfig(
        vocab_size=96,
        hidden_size=WIDTH,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        residual_multiplier=0.22,
    )
    torch.manual_seed(0)
    granite = HookedModel(transformers.GraniteForCausalLM(config).eval(), name="granite")
    with pytest.raises(CliffscopeError, match=r"GraniteForCausalLM has no hook_attn_out: it is not mapped"):
        read(granite, SITES[0])


def test_a_probe_that_reads_one_layer_s_output_is_refused() -> None:
    with pytest.raises(CliffscopeError, match=r"blocks\.1\.hook_mlp_out.*residual stream"):
        read(hooked("llama"), "blocks.1.hook_mlp_out")
    with pytest.raises(CliffscopeError, match="no rollout to read"):
        contributions(hooked("llama"), probe_at(SITES[0]), [])
