"""Where in a text an intervention acts: everywhere, at the edge, from there on, in a segment, or part of the thinking.

Written as one word, also on the command line: `all`, `from-edge`, `thinking`, `thinking:0.8-1` (the last fifth of the
thinking), `thinking:0.8-1@300` (the same while generating, when 300 tokens of thinking are expected).
"""

import math
import re
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interp.errors import CliffscopeError
from interp.models.segment_table import CODES, WritingSegments
from interp.models.token_context import TokenContext
from interp.transcripts.positions import SEGMENTS

SCOPES = ("all", "edge", "from-edge", *SEGMENTS)

WHOLE = (0.0, 1.0)
"""The window of a scope that is not a part of the thinking."""

_NUMBER = r"[0-9]*\.?[0-9]+|[0-9]+\."
_WINDOWED = re.compile(rf"([a-z-]+):({_NUMBER})-({_NUMBER})(?:@([0-9]+))?")


@dataclass(frozen=True)
class Scope:
    """A set of tokens, told for whole texts and token by token while generating.

    A window (a, b) of a thinking of n tokens holds its tokens ⌊a·n⌋ to ⌊b·n⌋ − 1, from 0, so that windows which adjoin
    share no token and leave none out. A window up to 1 has no end but the thinking's own.

    Attributes:
        name: `all`; `edge`: the last close token; `from-edge`: the edge and everything after it, so also while
            answering; or a segment: `system`, `instruction`, `template`, `thinking`, `close`, `response`. It may be
            given as the whole word (`thinking:0.8-1@300`); the attributes then hold its parts.
        window: The part of the thinking, as fractions of its length in tokens.
        thinking_tokens: That length where it is not known yet: needed for a window while generating. Where given it
            counts in whole texts too, so that a text is changed at the same tokens when it is replayed.

    Raises:
        CliffscopeError: If there is no such scope, or the window or the length is none.
    """

    name: str = "all"
    window: tuple[float, float] = WHOLE
    thinking_tokens: int | None = None

    def __post_init__(self) -> None:
        if match := _WINDOWED.fullmatch(self.name):
            if self.window != WHOLE or (match[4] and self.thinking_tokens is not None):
                raise CliffscopeError(f"scope {self.name!r}: give the window and the expected length once.")
            object.__setattr__(self, "name", match[1])
            object.__setattr__(self, "window", (float(match[2]), float(match[3])))
            if match[4]:
                object.__setattr__(self, "thinking_tokens", int(match[4]))
        if self.name not in SCOPES:
            raise CliffscopeError(
                f"scope {self.name!r}: expected one of {', '.join(SCOPES)}, or a part of the thinking such as "
                "thinking:0.8-1."
            )
        start, stop = self.window
        if not 0 <= start < stop <= 1:
            raise CliffscopeError(
                f"scope {self.name!r}: expected a window (a, b) with 0 ≤ a < b ≤ 1, found ({start}, {stop})."
            )
        if self.name != "thinking" and (self.window != WHOLE or self.thinking_tokens is not None):
            raise CliffscopeError(
                f"scope {self.name!r}: only the thinking has a window and an expected length; use scope 'thinking'."
            )
        if self.thinking_tokens is not None and self.thinking_tokens < 1:
            raise CliffscopeError(
                f"scope {self.name!r}: the expected length must be at least 1 token, found {self.thinking_tokens}."
            )

    def __str__(self) -> str:
        """The whole word, which makes the same scope."""
        if self.window == WHOLE and self.thinking_tokens is None:
            return self.name
        length = "" if self.thinking_tokens is None else f"@{self.thinking_tokens}"
        start, stop = (f"{fraction:.10f}".rstrip("0").rstrip(".") for fraction in self.window)
        return f"{self.name}:{start}-{stop}{length}"

    def mask(self, tokens: TokenContext) -> Bool[Tensor, "batch pos"]:
        """Which columns of a value are in the scope; padding never is.

        Raises:
            CliffscopeError: If the pass carries no transcripts and the scope is not `all`, or a part of the thinking is
                asked for while it is being written and no expected length is known.
        """
        exists: Bool[Tensor, "batch pos"] = tokens.index >= 0
        if self.name == "all":
            return exists
        if self.name == "edge":
            return exists & (tokens.index == tokens.edge[:, None])
        if self.name == "from-edge":
            return exists & (tokens.index >= tokens.edge[:, None])
        here = exists & tokens.in_segment(self.name)
        return here if self.window == WHOLE else self._in_window(tokens, here)

    def _in_window(self, tokens: TokenContext, here: Bool[Tensor, "batch pos"]) -> Bool[Tensor, "batch pos"]:
        """Which of the columns of the thinking lie in the window."""
        assert tokens.table is not None, "segments were asked for before"
        if self.thinking_tokens is None and isinstance(tokens.table, WritingSegments):
            a, b = self.window
            raise CliffscopeError(
                f"scope 'thinking': its part {a:g} to {b:g} is not known while the thinking is being written; give its "
                f"expected length in tokens (thinking_tokens=300, or thinking:{a:g}-{b:g}@300)."
            )
        if not bool(here.any()):  # the table grows with the text and is slow to make
            return here
        thinking = tokens.table.codes() == CODES["thinking"]
        first = thinking.int().argmax(-1)
        lengths = thinking.sum(-1) if self.thinking_tokens is None else torch.full_like(first, self.thinking_tokens)
        start, stop = (_part(lengths, fraction) for fraction in self.window)
        if self.window[1] == 1:
            stop = thinking.sum(-1)
        place = tokens.index.cpu() - first[:, None]
        return here & ((place >= start[:, None]) & (place < stop[:, None])).to(here.device)


def _part(lengths: Int[Tensor, " batch"], fraction: float) -> Int[Tensor, " batch"]:
    """⌊fraction · length⌋, where 0.29 · 100 is 29."""
    return torch.tensor([math.floor(round(fraction * length, 6)) for length in lengths.tolist()], dtype=torch.long)


def in_scope(where: Bool[Tensor, "batch pos"], new: Tensor, old: Tensor) -> Tensor:
    """`new` where the mask is set, else `old`; both `[batch, pos, ...]`."""
    return torch.where(where.reshape(*where.shape, *[1] * (old.ndim - 2)), new, old)
