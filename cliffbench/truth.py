"""What is known about an organism because it was planted, in the form in which scores ask for it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interventions.heads import Head, parse_heads


@dataclass(frozen=True, eq=False)
class Truth:
    """The answer key of one organism.

    Attributes:
        name: The organism's name.
        heads: What a search must find; empty where no heads were planted.
        has_cliff: Whether there is a refusal cliff; `None` where that is not known.
        sparse: Whether few heads suffice to undo it; `None` where that is not known or there is nothing to undo.
        edges: Pairs of a planted head and one that acts on what it writes.
        direction: The unit vector that carries "harmful" in the residual stream, if one was trained.
        facts: All else that is stored.
    """

    name: str
    heads: tuple[Head, ...] = ()
    has_cliff: bool | None = False
    sparse: bool | None = None
    edges: tuple[tuple[Head, Head], ...] = ()
    direction: Float[Tensor, " d_model"] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> "Truth":
        """The truth out of what `interp.organisms.truth` gives."""
        heads = tuple(_head(name) for name in facts.get("heads", ()))
        direction = facts.get("direction")
        return cls(
            name=str(facts["name"]),
            heads=heads,
            has_cliff=facts["cliff"] if "cliff" in facts else bool(heads),
            sparse=facts.get("sparse", True if heads else None),
            edges=tuple((_head(first), _head(second)) for first, second in facts.get("edges", ())),
            direction=None if direction is None else torch.tensor(direction, dtype=torch.float32),
            facts=facts,
        )

    @property
    def control(self) -> bool:
        """Whether anything found in it is a false claim."""
        return self.has_cliff is False


def _head(name: str) -> Head:
    (head,) = parse_heads(name)
    return head
