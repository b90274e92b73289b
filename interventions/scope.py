"""Where in a text an intervention acts: at all tokens, at the edge, from the edge on, or in a named segment."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from interp.errors import CliffscopeError
from interp.models.token_context import TokenContext
from interp.transcripts.positions import SEGMENTS

SCOPES = ("all", "edge", "from-edge", *SEGMENTS)


@dataclass(frozen=True)
class Scope:
    """A set of tokens, told for whole texts and token by token while generating.

    Attributes:
        name: `all`; `edge`: the last close token; `from-edge`: the edge and everything after it, so also while
            answering; or a segment: `system`, `instruction`, `template`, `thinking`, `close`, `response`.

    Raises:
        CliffscopeError: If the name is none of these.
    """

    name: str = "all"

    def __post_init__(self) -> None:
        if self.name not in SCOPES:
            raise CliffscopeError(f"scope {self.name!r}: expected one of {', '.join(SCOPES)}.")

    def mask(self, tokens: TokenContext) -> Bool[Tensor, "batch pos"]:
        """Which columns of a value are in the scope; padding never is.

        Raises:
            CliffscopeError: If the pass carries no transcripts and the scope is not `all`.
        """
        exists: Bool[Tensor, "batch pos"] = tokens.index >= 0
        if self.name == "all":
            return exists
        if self.name == "edge":
            return exists & (tokens.index == tokens.edge[:, None])
        if self.name == "from-edge":
            return exists & (tokens.index >= tokens.edge[:, None])
        return exists & tokens.in_segment(self.name)


def in_scope(where: Bool[Tensor, "batch pos"], new: Tensor, old: Tensor) -> Tensor:
    """`new` where the mask is set, else `old`; both `[batch, pos, ...]`."""
    return torch.where(where.reshape(*where.shape, *[1] * (old.ndim - 2)), new, old)
