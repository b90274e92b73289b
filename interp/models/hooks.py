"""Reading and changing values at places by plain PyTorch hooks, and the protocol of an intervention."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from interp.models.kv_cache import cache_in
from interp.models.packing import repack as repack
from interp.models.packing import see_input, see_output
from interp.models.packing import unpack as unpack
from interp.models.places import Place, Places
from interp.models.sites import Site
from interp.models.token_context import TokenContext

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel


Change = Callable[[Tensor, TokenContext], Tensor]
"""Makes the new value of a site, of the same shape, dtype and device, from the value, which is not to be written to.

A value is `[batch, pos, d_model]`, or `[batch, pos, head, d_head]` at `attn.hook_z`.
"""

Seen = Callable[[Tensor], Tensor | None]
"""Is shown a value; what it returns, if anything, replaces the value."""


class Intervention(Protocol):
    """A change of a forward pass."""

    def changes(self, model: "HookedModel") -> Mapping[str, Change]:
        """What becomes of the value at each site that it changes.

        Raises:
            CliffscopeError: If this model cannot be changed so.
        """
        ...


def hook(place: Place, see: Seen) -> RemovableHandle:
    """Calls `see` with the value at a place in every forward pass; what it returns, if anything, replaces the value.

    Per-head values are shown as `[batch, pos, head, d_head]`.
    """
    if place.end == "out":
        return place.module.register_forward_hook(lambda module, args, output: see_output(see, place.n_heads, output))
    return place.module.register_forward_pre_hook(
        lambda module, args, kwargs: see_input(see, place.n_heads, args, kwargs), with_kwargs=True
    )


def hook_to_change(places: Places, site: Site, change: Callable[[Tensor], Tensor]) -> list[RemovableHandle]:
    """Hooks that replace the value at a site by `change(value)` for everything that reads it."""
    return [hook(places.find(where), see) for where, see in in_order(places, [(site, change)])]


def planned(
    model: "HookedModel",
    interventions: Sequence[Intervention],
    see: Callable[[Intervention, Change, Site], Callable[[Tensor], Tensor]],
) -> list[tuple[Site, Callable[[Tensor], Tensor]]]:
    """What becomes of which sites.

    Args:
        model: The model.
        interventions: What to change.
        see: Makes of an intervention, its change and a site what becomes of the site's value.
    """
    return [
        (site := Site.parse(name, model.n_layers), see(intervention, change, site))
        for intervention in interventions
        for name, change in intervention.changes(model).items()
    ]


def in_order(places: Places, changes: Iterable[tuple[Site, Callable[[Tensor], Tensor]]]) -> list[tuple[Site, Seen]]:
    """What to do at which sites, in the order in which a pass reaches them, so that each value changes as asked.

    Changes of one site keep their order. The residual stream in the middle of a block is no module's output: the norm
    before the MLP sees it, but so does the skip connection. It is changed through what the attention adds to it, after
    all other changes of what goes into it.

    Raises:
        CliffscopeError: If there is no such site.
    """
    steps: list[tuple[Site, bool, Seen]] = []
    for site, change in changes:
        places.find(site)
        if site.name == "hook_resid_mid":
            keep, add_difference = _through_attention(change)
            steps.append((Site(site.layer, "hook_resid_pre"), True, keep))
            steps.append((Site(site.layer, "hook_attn_out"), True, add_difference))
        else:
            steps.append((site, False, change))
    steps.sort(key=lambda step: (*step[0].depth, step[1]))
    return [(site, see) for site, _, see in steps]


def _through_attention(change: Callable[[Tensor], Tensor]) -> tuple[Seen, Seen]:
    """What to do at the start of a block and at the attention's output to change the sum of the two."""
    before: list[Tensor] = []

    def keep(value: Tensor) -> None:
        before[:] = [value]

    def add_difference(written: Tensor) -> Tensor:
        middle = before[0] + written
        return written + (change(middle) - middle)

    return keep, add_difference


def changed(change: Change, value: Tensor, tokens: TokenContext, who: str, site: str) -> Tensor:
    """The new value of a site.

    Raises:
        ValueError: If the change does not keep shape and dtype.
    """
    new = change(value, tokens)
    if new.shape != value.shape or new.dtype != value.dtype:
        raise ValueError(
            f"{who} at {site} returned {tuple(new.shape)} {new.dtype}, expected {tuple(value.shape)} {value.dtype}"
        )
    return new


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
    cache = cache_in(kwargs)
    start = cache.get_seq_length() if cache is not None else 0
    return torch.arange(start, start + length, device=inputs.device).expand(batch, length)
