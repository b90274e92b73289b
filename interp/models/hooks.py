"""Reading and changing values at places by plain PyTorch hooks, and the protocol of an intervention."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from interp.models.places import Place, Places
from interp.models.sites import Site
from interp.models.token_context import TokenContext

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel


Change = Callable[[Tensor, TokenContext], Tensor]
"""Makes the new value of a site, of the same shape, dtype and device, from the value, which is not to be written to.

A value is `[batch, pos, d_model]`, or `[batch, pos, head, d_head]` at `attn.hook_z`.
"""


class Intervention(Protocol):
    """A change of a forward pass."""

    def changes(self, model: "HookedModel") -> Mapping[str, Change]:
        """What becomes of the value at each site that it changes.

        Raises:
            CliffscopeError: If this model cannot be changed so.
        """
        ...


def unpack(value: Any) -> Float[Tensor, "batch pos width"]:
    """The hidden state in a module's input or output, which older or remote code wraps in a tuple."""
    tensor = value[0] if isinstance(value, tuple | list) else value
    if not isinstance(tensor, Tensor) or tensor.ndim != 3:
        shape = tuple(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
        raise TypeError(f"expected a hidden state [batch, pos, width], found {shape}")
    return tensor


def repack(original: Any, tensor: Tensor) -> Any:
    """`original` with its hidden state replaced."""
    if isinstance(original, tuple | list):
        return type(original)((tensor, *original[1:]))
    return tensor


def hook(place: Place, see: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
    """Calls `see` with the value at a place in every forward pass; what it returns, if anything, replaces the value.

    Per-head values are shown as `[batch, pos, head, d_head]`.
    """

    def seen(tensor: Tensor) -> Tensor | None:
        if place.n_heads is None:
            return see(tensor)
        changed = see(tensor.unflatten(-1, (place.n_heads, -1)))
        return None if changed is None else changed.flatten(-2)

    def on_output(module: nn.Module, args: Any, output: Any) -> Any:
        changed = seen(unpack(output))
        return None if changed is None else repack(output, changed)

    def on_input(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            changed = seen(unpack(args[0]))
            return None if changed is None else ((repack(args[0], changed), *args[1:]), kwargs)
        changed = seen(unpack(kwargs["hidden_states"]))
        return None if changed is None else (args, {**kwargs, "hidden_states": changed})

    if place.end == "out":
        return place.module.register_forward_hook(on_output)
    return place.module.register_forward_pre_hook(on_input, with_kwargs=True)


def hook_to_change(places: Places, site: Site, change: Callable[[Tensor], Tensor]) -> list[RemovableHandle]:
    """Hooks that replace the value at a site by `change(value)` for everything that reads it.

    The residual stream in the middle of a block is no module's output: the norm before the MLP sees it, but so does the
    skip connection. It is changed through what the attention adds to it.
    """
    if site.name != "hook_resid_mid":
        return [hook(places.find(site), change)]
    places.find(site)  # raises where there is no such site
    before: list[Tensor] = []

    def keep(value: Tensor) -> None:
        before[:] = [value]

    def add_difference(written: Tensor) -> Tensor:
        middle = before[0] + written
        return written + (change(middle) - middle)

    return [
        hook(places.find(Site(site.layer, "hook_resid_pre")), keep),
        hook(places.find(Site(site.layer, "hook_attn_out")), add_difference),
    ]


def token_index(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Int[Tensor, "batch pos"]:
    """Each column's token index in its own sequence, from the arguments of a decoder's forward call.

    Derived from the attention mask where there is one (so left padding and a KV cache are accounted for), else counted
    from the cache's length.
    """
    inputs = args[0] if args else kwargs.get("input_ids")
    if inputs is None:
        inputs = kwargs["inputs_embeds"]
    batch, length = inputs.shape[:2]
    mask = kwargs.get("attention_mask")
    if isinstance(mask, Tensor) and mask.ndim == 2:
        index = (mask.long().cumsum(-1) - 1).masked_fill(mask == 0, -1)
        return index[:, -length:]
    cache = kwargs.get("past_key_values")
    start = cache.get_seq_length() if cache is not None else 0
    return torch.arange(start, start + length, device=inputs.device).expand(batch, length)
