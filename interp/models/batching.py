"""Batches of transcripts by length: little padding, a bounded number of tokens, halved when memory runs out."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from jaxtyping import Int
from torch import Tensor

PaddingSide = Literal["left", "right"]
T = TypeVar("T")


@dataclass(frozen=True)
class Batch:
    """Padded token ids of some rows.

    Attributes:
        rows: Indices of the rows in the caller's order.
        input_ids: Token ids.
        attention_mask: 1 at tokens, 0 at padding.
        start: The column of each row's first token.
    """

    rows: tuple[int, ...]
    input_ids: Int[Tensor, "batch pos"]
    attention_mask: Int[Tensor, "batch pos"]
    start: Int[Tensor, " batch"]

    @property
    def n_tokens(self) -> int:
        """Tokens that exist, padding not counted."""
        return int(self.attention_mask.sum())


SIMILAR = 0.85
"""Rows shorter than this share of a batch's longest are left to the next batch: padding is computed with too."""
SMALL = 1024
"""Tokens below which a batch takes shorter rows all the same, so that a device has enough to do at once."""


def plan_batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Row indices, longest rows first, in batches of rows of similar length.

    Args:
        lengths: Tokens of each row.
        batch_tokens: Most tokens of a batch, padding included; a single longer row still gets a batch of its own.
    """
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        if batches:
            # The first row of a batch is its longest, so it sets the padded width.
            longest, count = lengths[batches[-1][0]], len(batches[-1])
            similar = lengths[row] >= SIMILAR * longest or longest * count < SMALL
            if similar and longest * (count + 1) <= batch_tokens:
                batches[-1].append(row)
                continue
        batches.append([row])
    return batches


def pad(
    sequences: Sequence[Sequence[int]],
    rows: Sequence[int],
    pad_id: int,
    side: PaddingSide,
    device: torch.device,
) -> Batch:
    """The chosen rows as one padded batch on a device."""
    chosen = [sequences[row] for row in rows]
    width = max(len(ids) for ids in chosen)
    ids = torch.full((len(chosen), width), pad_id)
    mask = torch.zeros_like(ids)
    start = torch.tensor([width - len(sequence) if side == "left" else 0 for sequence in chosen])
    for number, sequence in enumerate(chosen):
        span = slice(int(start[number]), int(start[number]) + len(sequence))
        ids[number, span] = torch.tensor(sequence)
        mask[number, span] = 1
    return Batch(tuple(rows), ids.to(device), mask.to(device), start.to(device))


def run_halving(rows: Sequence[int], run: Callable[[Sequence[int]], T]) -> Iterator[tuple[Sequence[int], T]]:
    """Yields `(rows, run(rows))`; where memory runs out, the rows are run in two halves, and so on.

    Raises:
        RuntimeError: torch's own out-of-memory error, if a single row does not fit.
    """
    try:
        result = run(rows)
    except RuntimeError as error:
        if len(rows) == 1 or not is_out_of_memory(error):
            raise
    else:
        yield rows, result
        return
    # Outside the except block: its traceback would keep the failed batch's tensors alive.
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()
    middle = len(rows) // 2
    yield from run_halving(rows[:middle], run)
    yield from run_halving(rows[middle:], run)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error says that a device's memory (CUDA's, MPS's or the host's) ran out."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    message = str(error).lower()
    return "out of memory" in message or "can't allocate memory" in message or "not enough memory" in message
