"""Running a model from a block on: what one ordinary pass leaves behind, and blocks that give it back.

Nothing of a model's own is done over. The decoder runs as always and makes its own masks and position embeddings for
the batch at hand; only the blocks before the one to start from give a stored value instead of computing one. Hooks,
also those of interventions, act as in an ordinary pass: what is stored was taken before the hooks on a block's output,
and they act on it again. (Hooks on blocks that are left out fire too, on values that nobody reads.)
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.models.capture import take_columns
from interp.models.hooks import hook, repack, unpack
from interp.models.replaced import replaced_forward
from interp.models.sites import Site

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel


@dataclass
class Recording:
    """What one pass leaves behind, by layer.

    Attributes:
        output: What the block returned, before hooks on it.
        z: The heads' outputs as hooks left them, before a sweep's own change.
        attention: What the attention returned, without its tensors.
    """

    output: dict[int, Any] = field(default_factory=dict)
    z: dict[int, Float[Tensor, "batch pos head d_head"]] = field(default_factory=dict)
    attention: dict[int, Any] = field(default_factory=dict)


@contextmanager
def recording(model: "HookedModel", start: int = 0) -> Iterator[Recording]:
    """Records the pass inside the block, at the columns from `start` on."""
    made = Recording()

    def keep(tensor: Tensor) -> Tensor:
        # A slice would keep the whole alive.
        return tensor[:, start:].clone() if start else tensor

    def record_block(layer: int, forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            output = forward(*args, **kwargs)
            made.output[layer] = repack(output, keep(unpack(output)))
            return output

        return run

    def record_attention(layer: int, forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            output = forward(*args, **kwargs)
            made.attention[layer] = tuple(None for _ in output) if isinstance(output, tuple) else None
            return output

        return run

    def record_z(layer: int, z: Tensor) -> None:
        made.z[layer] = keep(z)

    with ExitStack() as stack:
        for layer, block in enumerate(model.places.blocks):
            stack.enter_context(replaced_forward(block, record_block(layer, block.forward)))
            attention = model.places.attention(layer)
            stack.enter_context(replaced_forward(attention, record_attention(layer, attention.forward)))
            place = model.places.find(Site(layer, "attn.hook_z"))
            stack.callback(hook(place, lambda z, layer=layer: record_z(layer, z)).remove)  # type: ignore[misc]
        yield made


@contextmanager
def skipped(blocks: Sequence[nn.Module], output: Any) -> Iterator[None]:
    """Makes these blocks give `output`, the output of the last of them, without computing."""
    with ExitStack() as stack:
        for block in blocks:
            stack.enter_context(replaced_forward(block, lambda *args, **kwargs: output))
        yield


@contextmanager
def changed_heads(model: "HookedModel", changes: Mapping[int, Callable[[Tensor], Tensor]]) -> Iterator[None]:
    """Puts `change(z)`, `[batch, pos, head, d_head]`, before the output projections of some layers.

    It acts after all that is attached to the model.
    """
    with ExitStack() as stack:
        for layer, change in changes.items():
            stack.callback(hook(model.places.find(Site(layer, "attn.hook_z")), change).remove)
        yield


@contextmanager
def given_heads(
    model: "HookedModel", layer: int, z: Float[Tensor, "batch pos head d_head"], attention: Any
) -> Iterator[None]:
    """Makes a layer's attention project a given z and compute nothing else.

    Args:
        model: The model.
        layer: Whose attention.
        z: The heads' outputs.
        attention: What the attention returned in a recording, for the form of what it returns.
    """
    place = model.places.find(Site(layer, "attn.hook_z"))

    def forward(*args: Any, **kwargs: Any) -> Any:
        # Called as a module, so that hooks on the projection's output act; those on its input are overruled.
        return repack(attention, place.module(z.flatten(-2)))

    with changed_heads(model, {layer: lambda _: z}), replaced_forward(model.places.attention(layer), forward):
        yield


@contextmanager
def only_columns(module: nn.Module, columns: Int[Tensor, "batch position"]) -> Iterator[None]:
    """Makes a module that works token by token compute these columns only, and give zeros elsewhere."""
    original = module.forward

    def forward(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        at = columns.to(hidden_states.device)

        def cut(value: Any) -> Any:
            # Bloom and MPT hand the residual stream to the MLP too.
            tokens = isinstance(value, Tensor) and value.shape[:2] == hidden_states.shape[:2]
            return take_columns(value, at) if tokens else value

        output = original(cut(hidden_states), *map(cut, args), **{name: cut(value) for name, value in kwargs.items()})
        few = unpack(output)
        whole = few.new_zeros(*hidden_states.shape[:2], few.shape[-1])
        whole[torch.arange(len(at), device=at.device)[:, None], at] = few
        return repack(output, whole)

    with replaced_forward(module, forward):
        yield
