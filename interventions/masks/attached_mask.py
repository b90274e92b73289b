"""A mask's hooks on a model: what they do, how often they did it, and how they are removed."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.errors import CliffscopeError
from interp.models.hooks import hook
from interp.models.places import Places
from interp.models.sites import Site
from interventions.masks.compiled_code import hooks_added, hooks_removed
from interventions.renormalize import keep_norm


class MaskedLayer:
    """Scales the outputs of one layer's heads, and counts how often it did.

    Attributes:
        calls: `[]`, on the device of the output projection: adding to a tensor works in compiled code, too.
        dtype: Of the values last seen; the precision in which the model runs, whatever its weights are.
    """

    def __init__(self, projection: nn.Module, scale: Float[Tensor, " head"], renormalize: bool) -> None:
        weight = next(projection.parameters())
        self._projection = projection
        self._scale = scale[:, None].to(weight.device)
        self._renormalize = renormalize
        self.calls = torch.zeros((), dtype=torch.long, device=weight.device)
        self.dtype: torch.dtype | None = None

    def __call__(self, z: Float[Tensor, "batch pos head d_head"]) -> Float[Tensor, "batch pos head d_head"]:
        """The masked value; `z` is not written to."""
        self.calls.add_(1)
        self.dtype = z.dtype
        masked = z * self._scale.to(device=z.device, dtype=z.dtype)
        return keep_norm(self._projection, z, masked) if self._renormalize else masked


class AttachedMask:
    """A mask on a model; made by `HeadMask.attach`.

    Args:
        places: Where the model's parts are.
        layers: What is done at each masked layer.

    Raises:
        CliffscopeError: If masked layers share their output projection with others.
    """

    def __init__(self, places: Places, layers: Mapping[int, MaskedLayer]) -> None:
        _check_unshared(places, layers)
        self._layers = dict(layers)
        self._seen = [0] * len(layers)
        self._handles = [
            hook(places.find(Site(layer, "attn.hook_z")), masked) for layer, masked in self._layers.items()
        ]
        hooks_added()

    def remove(self) -> None:
        """Removes exactly these hooks; a second call does nothing."""
        for handle in self._handles:
            handle.remove()
        if self._handles:
            hooks_removed()
        self._handles = []

    @property
    def calls(self) -> dict[int, int]:
        """How many forward passes each masked layer was masked in, those of gradient checkpointing counted again."""
        return {layer: int(masked.calls) for layer, masked in self._layers.items()}

    @property
    def dtype(self) -> torch.dtype | None:
        """The precision in which the heads last ran; `None` before the first pass."""
        return next(iter(self._layers.values())).dtype

    def require_live(self, when: str) -> None:
        """Raises `CliffscopeError` unless every masked layer was masked since the last time this was asked.

        Args:
            when: For the message, such as `"in step 3"`.
        """
        calls = self.calls
        dead = [str(layer) for (layer, now), before in zip(calls.items(), self._seen, strict=True) if now == before]
        self._seen = list(calls.values())
        if dead:
            raise CliffscopeError(
                f"mask: not live {when}: nothing went through it in layer {', '.join(dead)}. Something removed its "
                "hooks, replaced the output projections, or runs code that calls no hooks; what was trained is not "
                "what the mask describes."
            )


def _check_unshared(places: Places, layers: Mapping[int, MaskedLayer]) -> None:
    projections = [id(places.output_projection(layer)) for layer in range(places.n_layers)]
    for layer in layers:
        others = [str(n) for n, projection in enumerate(projections) if projection == projections[layer] and n != layer]
        if others:
            raise CliffscopeError(
                f"mask: layers {layer} and {', '.join(others)} share one output projection; a mask cannot tell them "
                "apart."
            )
