"""Attention masks of copies of a text's last tokens, laid side by side after what comes before them."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from interp.errors import CliffscopeError

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel

Mask = Shaped[Tensor, "batch head _query _key"]
"""True, or 0, where a query sees a key; False, or the lowest number, where it does not."""


@contextmanager
def recorded_masks(model: "HookedModel", start: int) -> Iterator[dict[int, Mask]]:
    """The rows from `start` on of the mask that each layer's attention is given in one pass inside the block.

    Raises:
        CliffscopeError: If an attention is given no mask of this form.
    """
    found: dict[int, Mask] = {}
    # Layers share masks, and so do what is kept of them; a slice would keep all of a mask alive.
    parts: list[tuple[Tensor | None, Mask]] = []

    def see(layer: int, args: Any, kwargs: dict[str, Any]) -> None:
        mask = kwargs.get("attention_mask", False)
        if mask is not None and not (isinstance(mask, Tensor) and mask.ndim == 4):
            raise CliffscopeError(
                f"{model.places.architecture}: its attention is given no mask [batch, head, query, key], so that heads "
                "cannot be swept from the edge on; sweep them at all positions."
            )
        if not any(mask is whole for whole, _ in parts):
            hidden = args[0] if args else kwargs["hidden_states"]
            parts.append((mask, _causal(hidden, start) if mask is None else mask[:, :, start:].clone()))
        found[layer] = next(part for whole, part in parts if whole is mask)

    with _attention_hooks(model, see):
        yield found
    parts.clear()


def _causal(hidden: Float[Tensor, "batch pos d_model"], start: int) -> Mask:
    """The mask that PyTorch's attention goes without where every token sees all before it."""
    batch, n = hidden.shape[:2]
    return torch.ones(batch, 1, n - start, n, dtype=torch.bool, device=hidden.device).tril(start)


def side_by_side(masks: Mapping[int, Mask], length: int, copies: int) -> dict[int, Mask]:
    """The masks under which each copy of the last `length` tokens sees what comes before them and itself.

    Args:
        masks: Of each layer, for one copy.
        length: Tokens of a copy: the queries of these masks, and the last of their keys.
        copies: How many.
    """
    different = {id(mask): mask for mask in masks.values()}
    made = {key: _repeated(mask, length, copies) for key, mask in different.items()}
    return {layer: made[id(mask)] for layer, mask in masks.items()}


def _repeated(mask: Mask, length: int, copies: int) -> Mask:
    before, own = mask.split([mask.shape[-1] - length, length], dim=-1)
    hidden = False if mask.dtype == torch.bool else torch.finfo(mask.dtype).min
    among = mask.new_full((*mask.shape[:2], copies, length, copies, length), hidden)
    for copy in range(copies):
        among[:, :, copy, :, copy] = own
    return torch.cat([before.repeat(1, 1, copies, 1), among.flatten(4, 5).flatten(2, 3)], dim=-1)


@contextmanager
def given_masks(model: "HookedModel", masks: Mapping[int, Mask]) -> Iterator[None]:
    """Gives each layer's attention this mask in place of the decoder's own."""
    with _attention_hooks(model, lambda layer, args, kwargs: (args, {**kwargs, "attention_mask": masks[layer]})):
        yield


@contextmanager
def _attention_hooks(model: "HookedModel", see: Callable[[int, Any, dict[str, Any]], Any]) -> Iterator[None]:
    with ExitStack() as stack:
        for layer in range(model.n_layers):
            handle = model.places.attention(layer).register_forward_pre_hook(
                lambda _, args, kwargs, layer=layer: see(layer, args, kwargs), with_kwargs=True
            )
            stack.callback(handle.remove)
        yield


@contextmanager
def attention_with_masks(model: "HookedModel") -> Iterator[None]:
    """Attention that takes any mask: PyTorch's own in place of FlashAttention and the like, inside the block."""
    decoder: Any = model.places.decoder
    before = decoder.config._attn_implementation
    if before in ("eager", "sdpa"):
        yield
        return
    decoder.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        decoder.set_attn_implementation(before)
