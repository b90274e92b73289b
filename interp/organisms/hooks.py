"""Small hooks on an organism: reading the residual stream, zeroing heads.

They are for training and measuring organisms; to study a model use `HookedModel`.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import Qwen3ForCausalLM

Head = tuple[int, int]


def coordinate(h: Float[Tensor, "*rows d_model"], direction: Float[Tensor, " d_model"]) -> Float[Tensor, "*rows"]:
    """Where `h`, scaled to a root mean square of 1, lies along the unit direction."""
    h = h.float()
    return (h @ direction) * torch.rsqrt(h.square().mean(-1) + 1e-6)


@contextmanager
def residuals(model: Qwen3ForCausalLM) -> Iterator[list[Float[Tensor, "batch pos d_model"]]]:
    """Collects the output of every block of the forward passes run inside, as a list by layer."""
    stream: list[Tensor] = []

    def keep(module: Any, args: Any, output: Any) -> None:
        stream.append(output[0] if isinstance(output, tuple) else output)

    handles = [block.register_forward_hook(keep) for block in model.model.layers]
    try:
        yield stream
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def zeroed_heads(model: Qwen3ForCausalLM, heads: list[Head]) -> Iterator[None]:
    """Zeroes what the query heads `(layer, head)` write, at every position."""
    size = model.config.head_dim

    def hook(head: int) -> Callable[[Any, tuple[Tensor]], tuple[Tensor]]:
        def zero(module: Any, args: tuple[Tensor]) -> tuple[Tensor]:
            z = args[0].clone()
            z[..., head * size : (head + 1) * size] = 0
            return (z,)

        return zero

    handles = [
        model.model.layers[layer].self_attn.o_proj.register_forward_pre_hook(hook(head)) for layer, head in heads
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def random_heads(model: Qwen3ForCausalLM, n: int, rng: random.Random) -> list[Head]:
    """`n` different heads."""
    config = model.config
    heads = [(la, he) for la in range(config.num_hidden_layers) for he in range(config.num_attention_heads)]
    return rng.sample(heads, n)
