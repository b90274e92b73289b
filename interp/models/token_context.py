"""What an intervention is told about the columns of a value: which tokens they are, whose, and in which segment."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interp.errors import CliffscopeError
from interp.models.segment_table import CODES, SegmentTable

if TYPE_CHECKING:
    from interp.transcripts import Transcript


@dataclass(frozen=True)
class TokenContext:
    """Which tokens the columns of a value are, during a whole-text pass and during generation alike.

    Attributes:
        index: Each column's token index in its own sequence, padding not counted; −1 at padding, and for what is fed to
            a row that has ended while others are still being generated.
        transcripts: The transcript of each row where the caller gave transcripts, else empty. While generating,
            indices beyond a transcript's length are the tokens generated so far.
        table: The segments of all tokens, where they are known.
    """

    index: Int[Tensor, "batch pos"]
    transcripts: "Sequence[Transcript]" = ()
    table: SegmentTable | None = None

    def in_segment(self, segment: str) -> Bool[Tensor, "batch pos"]:
        """Which columns belong to a segment (`instruction`, `thinking`, `close`, `response`, …).

        While generating, a token's segment is what can be known when it is read: see `interp.transcripts.writing`.

        Raises:
            CliffscopeError: If the pass carries no transcripts.
        """
        return (self._column_codes == CODES[segment]).to(self.index.device)

    @cached_property
    def edge(self) -> Int[Tensor, " batch"]:
        """Each row's edge as a token index; larger than any index where it is not reached.

        Raises:
            CliffscopeError: If the pass carries no transcripts.
        """
        return self._known().edges().to(self.index.device)

    @cached_property
    def _column_codes(self) -> Int[Tensor, "batch pos"]:
        index, codes = self.index.cpu(), self._known().codes()
        return torch.where(index >= 0, codes.gather(1, index.clamp(min=0)), -1)

    def _known(self) -> SegmentTable:
        if self.table is None:
            raise CliffscopeError(
                "this pass does not say whose tokens it carries, so segments and the edge are unknown: act at all "
                "positions, or run it through HookedModel's capture, logits or generate."
            )
        return self.table
