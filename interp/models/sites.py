"""Names of places in a model, as TransformerLens writes them: `blocks.3.hook_resid_post`, `ln_final.hook_out`."""

import math
import re
from dataclasses import dataclass

from interp.errors import CliffscopeError

BLOCK_SITES = (
    "hook_resid_pre",
    "attn.hook_z",
    "hook_attn_out",
    "hook_resid_mid",
    "hook_mlp_out",
    "hook_resid_post",
)
"""The sites of one block in the order in which a sequential block computes them."""

FINAL_NORM = "ln_final.hook_out"
"""The output of the final norm: what the LM head reads, and the last entry of `hidden_states`."""

_BLOCK_SITE = re.compile(r"blocks\.(-?\d+)\.(.+)")


@dataclass(frozen=True, order=True)
class Site:
    """One place in a model.

    Attributes:
        layer: Block index from 0; `None` for the final norm.
        name: One of `BLOCK_SITES`, or `FINAL_NORM`.
    """

    layer: int | None
    name: str

    @classmethod
    def parse(cls, text: str, n_layers: int) -> "Site":
        """Reads a site name; a layer of −1 is the last.

        Raises:
            CliffscopeError: If the name or the layer does not exist.
        """
        if text == FINAL_NORM:
            return cls(None, FINAL_NORM)
        match = _BLOCK_SITE.fullmatch(text)
        if match is None or match[2] not in BLOCK_SITES:
            raise CliffscopeError(
                f"Unknown site {text!r}: expected blocks.LAYER.SITE with SITE one of {', '.join(BLOCK_SITES)}, "
                f"or {FINAL_NORM}."
            )
        return cls(resolve_layer(int(match[1]), n_layers), match[2])

    @property
    def depth(self) -> tuple[float, int]:
        """Orders sites as a pass reaches them."""
        return (math.inf, 0) if self.layer is None else (self.layer, BLOCK_SITES.index(self.name))

    def __str__(self) -> str:
        return self.name if self.layer is None else f"blocks.{self.layer}.{self.name}"


def resid_post(layer: int) -> str:
    """The name of the residual stream after a block: the default place of a probe."""
    return f"blocks.{layer}.hook_resid_post"


def resolve_layer(layer: int, n_layers: int) -> int:
    """A layer index from 0, where −1 is the last. Raises `CliffscopeError` if there is no such layer."""
    if not -n_layers <= layer < n_layers:
        raise CliffscopeError(f"There is no layer {layer}: the model has layers 0 to {n_layers - 1}.")
    return layer % n_layers
