"""Names of attention heads: query heads, written `3.1` for head 1 of layer 3, both from 0."""

import re
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from interp.errors import CliffscopeError

_HEAD = re.compile(r"\s*([0-9]+)\.([0-9]+)\s*")


class Head(NamedTuple):
    """One query head."""

    layer: int
    head: int

    def __str__(self) -> str:
        return f"{self.layer}.{self.head}"


class Sizes(Protocol):
    """What is asked of a model here; `HookedModel` and `Places` have it."""

    @property
    def n_layers(self) -> int:
        """Blocks."""
        ...

    @property
    def n_heads(self) -> int:
        """Query heads a layer."""
        ...

    @property
    def n_kv_heads(self) -> int:
        """Key and value heads a layer."""
        ...


def parse_heads(text: str) -> tuple[Head, ...]:
    """Heads from `3.1` or `3.1,4.5`; each once, in the order given. Raises `CliffscopeError` for anything else."""
    found: dict[Head, None] = {}
    for part in text.split(","):
        match = _HEAD.fullmatch(part)
        if match is None:
            raise CliffscopeError(f"head {part.strip()!r}: expected LAYER.HEAD, both from 0, such as 3.1.")
        found[Head(int(match[1]), int(match[2]))] = None
    return tuple(found)


def check_heads(heads: Iterable[tuple[int, int]], model: Sizes) -> tuple[Head, ...]:
    """The heads, ascending and each once.

    Raises:
        CliffscopeError: If there is none, or the model has no such query head.
    """
    chosen = sorted({Head(*head) for head in heads})
    if not chosen:
        raise CliffscopeError("heads: none is given.")
    for head in chosen:
        if not 0 <= head.layer < model.n_layers:
            raise CliffscopeError(f"head {head}: there is no layer {head.layer}: layers are 0 to {model.n_layers - 1}.")
        if not 0 <= head.head < model.n_heads:
            grouped = (
                f"; the {model.n_kv_heads} key-value heads are shared by them and cannot be named"
                if model.n_kv_heads != model.n_heads
                else ""
            )
            raise CliffscopeError(f"head {head}: layer {head.layer} has query heads 0 to {model.n_heads - 1}{grouped}.")
    return tuple(chosen)
