"""Frozen norms: read off the behaviour of every listed norm, exact as a linear map, and refused where they are none."""

from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from interp.errors import CliffscopeError
from interp.models.frozen_norm import FrozenNorm

WIDTH = 32


class NoParameters(nn.Module):
    """OLMo's first norm: a LayerNorm without gain and bias."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.layer_norm(x, x.shape[-1:])


def norms() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    made: dict[str, nn.Module] = {
        "llama": transformers.models.llama.modeling_llama.LlamaRMSNorm(WIDTH),
        "gemma": transformers.models.gemma3.modeling_gemma3.Gemma3RMSNorm(WIDTH),
        "olmo2": transformers.models.olmo2.modeling_olmo2.Olmo2RMSNorm(WIDTH),
        "torch rms": nn.RMSNorm(WIDTH, eps=1e-5),
        "torch layer": nn.LayerNorm(WIDTH),
        "none": NoParameters(),
    }
    for norm in made.values():
        for parameter in norm.parameters():
            nn.init.normal_(parameter)  # negative gains too
    return made


CENTRING = {"torch layer", "none"}


def gain_of(name: str, norm: nn.Module) -> torch.Tensor:
    weight: Any = getattr(norm, "weight", torch.ones(WIDTH))
    return (weight + 1 if name == "gemma" else weight).detach()


@pytest.mark.parametrize("name", list(norms()))
def test_gain_bias_and_centring_are_those_of_the_module(name: str) -> None:
    norm = norms()[name]
    frozen = FrozenNorm.of(norm, WIDTH, name)
    torch.testing.assert_close(frozen.gain, gain_of(name, norm), atol=1e-6, rtol=1e-6)
    bias: Any = getattr(norm, "bias", None)
    torch.testing.assert_close(frozen.bias, torch.zeros(WIDTH) if bias is None else bias.detach(), atol=1e-5, rtol=1e-5)
    assert frozen.centres == (name in CENTRING)


@pytest.mark.parametrize("name", list(norms()))
@given(seed=st.integers(0, 1000), size=st.sampled_from([0.05, 1.0, 300.0]), shift=st.sampled_from([0.0, 3.0]))
@settings(max_examples=20, deadline=None)
def test_a_direction_pulled_through_gives_the_projection_of_the_output(
    name: str, seed: int, size: float, shift: float
) -> None:
    norm = norms()[name]
    generator = torch.Generator().manual_seed(seed)
    x = size * (torch.randn(2, 3, WIDTH, generator=generator) + shift)
    w = torch.randn(WIDTH, generator=generator)
    y = norm(x).detach()
    frozen = FrozenNorm.of(norm, WIDTH, name)
    scale = frozen.scales(x, y)
    assert scale.shape == (2, 3)
    torch.testing.assert_close(scale * (x @ frozen.pull(w)) + frozen.constant(w), y @ w, atol=2e-4, rtol=1e-4)
    deviation = x - x.mean(-1, keepdim=True) if frozen.centres else x
    torch.testing.assert_close(scale, deviation.square().mean(-1).add(1e-6).rsqrt(), rtol=5e-3, atol=0.0)


def test_the_parts_of_an_input_add_up() -> None:
    norm = norms()["torch layer"]
    parts = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(1))
    x, w = parts.sum(0), torch.ones(WIDTH).cumsum(0)
    frozen = FrozenNorm.of(norm, WIDTH, "ln")
    scale = frozen.scales(x, norm(x).detach())
    shares = scale * (parts @ frozen.pull(w))
    assert float(shares.sum()) + frozen.constant(w) == pytest.approx(float(norm(x).detach() @ w), rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["llama", "gemma", "torch layer"])
def test_half_precision_is_within_its_own_rounding(name: str, dtype: torch.dtype) -> None:
    norm = norms()[name].to(dtype)
    x = torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(2)).to(dtype)
    w = torch.randn(WIDTH, generator=torch.Generator().manual_seed(3))
    y = norm(x).detach()
    frozen = FrozenNorm.of(norm, WIDTH, name)
    found = frozen.scales(x, y) * (x.float() @ frozen.pull(w)) + frozen.constant(w)
    torch.testing.assert_close(found, y.float() @ w, atol=8 * torch.finfo(dtype).eps * float(w.norm()), rtol=0.0)


def test_hooks_on_the_module_do_not_act_on_what_is_read_off() -> None:
    norm = norms()["llama"]
    expected = FrozenNorm.of(norm, WIDTH, "ln").gain
    norm.register_forward_hook(lambda module, args, output: output * 7)
    torch.testing.assert_close(FrozenNorm.of(norm, WIDTH, "ln").gain, expected)


class Tanh(nn.Module):
    """A norm in name only (Zhu et al. 2025, Dynamic Tanh)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(0.5 * x)


class Grouped(nn.Module):
    """Each half has a scale of its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([nn.functional.layer_norm(half, half.shape[-1:]) for half in x.chunk(2, -1)], -1)


@pytest.mark.parametrize("norm", [Tanh(), Grouped()])
def test_what_is_no_such_norm_is_refused_by_name(norm: nn.Module) -> None:
    x = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(4)) * torch.linspace(0.1, 4, WIDTH)
    frozen = FrozenNorm.of(norm, WIDTH, "blocks.2.odd_norm")
    with pytest.raises(CliffscopeError, match=r"blocks\.2\.odd_norm: its output is not a scaled copy"):
        frozen.scales(x, norm(x))


def test_an_output_that_was_changed_is_refused() -> None:
    norm = norms()["llama"]
    x = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(5))
    y = norm(x).detach()
    y[1, 0] += 0.1
    with pytest.raises(CliffscopeError, match="an intervention changes it"):
        FrozenNorm.of(norm, WIDTH, "ln").scales(x, y)
    with pytest.raises(CliffscopeError, match="ln"):
        FrozenNorm.of(norm, WIDTH, "ln").scales(x * float("nan"), y)
