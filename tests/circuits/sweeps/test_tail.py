"""The sweep of the last positions: the same as one full run a head, wherever the changed positions begin."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from circuits.sweeps.readouts import Readouts
from circuits.sweeps.tail import sweep_tail
from interp.errors import CliffscopeError
from interp.models.hooked_model import HookedModel
from tests.architectures import CONFIGS
from tests.circuits.sweeps.brute_force import TOKENS, both, brute_force, rollouts, wrapped

TOLERANCE = {"atol": 1e-4, "rtol": 1e-4}


def another_value(row: int, layer: int, z: Tensor) -> Tensor:
    """Depends on row, layer, position and head, as values of another rollout would."""
    generator = torch.Generator().manual_seed(100 * row + layer)
    return torch.randn(z.shape, generator=generator)


@pytest.mark.parametrize(
    ("name", "attention"),
    [*((name, "sdpa") for name in CONFIGS), *((name, "eager") for name in ("gemma3", "gpt2", "mistral", "mixtral"))],
)
def test_tails_of_several_tokens_are_exact(name: str, attention: str) -> None:
    model, transcripts = wrapped(name, attention), rollouts()
    starts = [0, 18, 16]
    ablated = [(1, 2)]
    base, changed = brute_force(model, transcripts, another_value, starts, ablated)
    for batch_tokens in (8192, 30, 1):
        found = sweep_tail(
            model, transcripts, both(), another_value, start=starts, ablated=ablated, batch_tokens=batch_tokens
        )
        torch.testing.assert_close(found.base, base, **TOLERANCE)
        torch.testing.assert_close(found.changed, changed, **TOLERANCE)
    assert found.effect("refusal_logit").abs().mean() > 0.05
    assert model.hf.config._attn_implementation == attention


@pytest.fixture(scope="module")
def gemma() -> HookedModel:
    return wrapped("gemma3")  # sliding windows of 8


@settings(max_examples=15, deadline=None)
@given(edge=st.integers(0, 25), back=st.integers(0, 25), batch_tokens=st.integers(1, 200))
def test_any_start_and_budget(gemma: HookedModel, edge: int, back: int, batch_tokens: int) -> None:
    start = max(0, edge - back)
    transcripts = rollouts([edge], [0])
    base, changed = brute_force(gemma, transcripts, another_value, [start])
    found = sweep_tail(gemma, transcripts, both(), another_value, start=[start], batch_tokens=batch_tokens)
    torch.testing.assert_close(found.base, base, **TOLERANCE)
    torch.testing.assert_close(found.changed, changed, **TOLERANCE)


def test_attention_that_takes_no_mask_is_replaced_meanwhile() -> None:
    def no_masks(module, query, key, value, attention_mask, **options):  # type: ignore[no-untyped-def]
        assert attention_mask is None, "this attention takes no mask, like FlashAttention"
        return sdpa_attention_forward(module, query, key, value, None, is_causal=True, **options)

    AttentionInterface.register("takes_no_mask", no_masks)
    model, transcripts = wrapped("qwen3"), rollouts()
    expected = sweep_tail(model, transcripts, both(), another_value)
    model.hf.set_attn_implementation("takes_no_mask")
    found = sweep_tail(model, transcripts, both(), another_value)
    torch.testing.assert_close(found.changed, expected.changed, **TOLERANCE)
    assert model.hf.config._attn_implementation == "takes_no_mask"
    model.hf(torch.tensor([transcripts[0].input_ids]))  # and goes on as it was


def test_heads_are_halved_when_memory_runs_out() -> None:
    model, transcripts = wrapped("qwen3"), rollouts()
    expected = sweep_tail(model, transcripts, both(), another_value)
    sizes: list[int] = []

    def small_memory(module: object, args: tuple[Tensor]) -> None:
        sizes.append(args[0].shape[1])
        if args[0].shape[1] in (4, 7, 13):  # a pass with 3, 6 or 12 heads and the tail itself
            raise RuntimeError("CUDA out of memory")

    handle = model.places.mlp(2).register_forward_pre_hook(small_memory)
    found = sweep_tail(model, transcripts, both(), another_value)
    handle.remove()
    assert max(sizes[1:]) >= 7 and min(sizes) <= 3
    torch.testing.assert_close(found.changed, expected.changed, **TOLERANCE)


def test_what_goes_through_the_blocks_is_the_text_once_and_a_few_copies_of_the_edge() -> None:
    model, transcripts = wrapped("llama"), rollouts([99], [0])
    tokens = 0

    def count(module: object, args: tuple[Tensor]) -> None:
        nonlocal tokens
        tokens += args[0].shape[0] * args[0].shape[1]

    handles = [model.places.mlp(layer).register_forward_pre_hook(count) for layer in range(3)]
    sweep_tail(model, transcripts, Readouts(refusal_tokens=TOKENS), another_value)
    for handle in handles:
        handle.remove()
    assert tokens == 3 * 100 + 3 * (12 + 1)


def test_a_start_behind_the_edge_is_an_error() -> None:
    model = wrapped("llama")
    with pytest.raises(CliffscopeError, match=r"'r0': cannot change it from token 5 on; its edge is token 4"):
        sweep_tail(model, rollouts(), both(), another_value, start=[5, 0, 0])


def test_a_new_value_of_another_shape_is_named() -> None:
    with pytest.raises(ValueError, match="layer 0: the new z is"):
        sweep_tail(wrapped("llama"), rollouts(), both(), lambda row, layer, z: z[:, :2])


def test_a_model_whose_attention_is_given_no_mask_is_refused() -> None:
    model = wrapped("llama")
    attention = model.places.attention(1)
    forward = attention.forward
    handle = attention.register_forward_pre_hook(
        lambda module, args, kwargs: (args, {**kwargs, "attention_mask": torch.ones(1, 30)}), with_kwargs=True
    )
    with pytest.raises(CliffscopeError, match="LlamaForCausalLM: its attention is given no mask"):
        sweep_tail(model, rollouts(), both(), another_value)
    handle.remove()
    assert attention.forward == forward


def test_a_model_whose_copies_see_more_than_their_masks_say_is_refused() -> None:
    """Attention that reads its place in the sequence gives the copies other values than the tail has."""
    model = wrapped("gpt2")

    def by_place(module: object, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (args[0] + torch.arange(args[0].shape[1])[:, None], *args[1:])

    model.places.mlp(1).register_forward_pre_hook(by_place)
    with pytest.raises(
        CliffscopeError, match=r"GPT2LMHeadModel: its blocks from layer 0 on give .* cannot be swept at this scope"
    ):
        sweep_tail(model, rollouts(), both(), another_value)
