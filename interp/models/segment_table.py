"""Which segment every token of a pass belongs to: of whole texts, and of texts that are being written."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interp.transcripts.positions import SEGMENTS
from interp.transcripts.writing import SegmentWriter

if TYPE_CHECKING:
    from interp.transcripts import Transcript
    from interp.transcripts.chat import ChatFormat

NOT_REACHED = 2**31 - 1
"""The edge of a row that has none yet."""

CODES = {name: code for code, name in enumerate(SEGMENTS)}


class SegmentTable(Protocol):
    """The segments of a batch's rows, by token index; on the CPU."""

    def codes(self) -> Int[Tensor, "batch token"]:
        """The place of each token's segment in `SEGMENTS`; −1 where a row has no token."""
        ...

    def edges(self) -> Int[Tensor, " batch"]:
        """Each row's edge, or `NOT_REACHED`."""
        ...


class TextSegments:
    """Of whole texts."""

    def __init__(self, transcripts: "Sequence[Transcript]") -> None:
        self._transcripts = transcripts

    def codes(self) -> Int[Tensor, "batch token"]:
        """See `SegmentTable`."""
        return _table([[CODES[label] for label in transcript.labels] for transcript in self._transcripts])

    def edges(self) -> Int[Tensor, " batch"]:
        """See `SegmentTable`."""
        found = [transcript.segments.get("close", (0, NOT_REACHED + 1))[1] - 1 for transcript in self._transcripts]
        return torch.tensor(found)


class WritingSegments:
    """Of texts that are being written after their prompts, token by token.

    Args:
        prompts: The rows' prompts.
        chat: Gives the thinking tags; called only where a segment is asked for, since a model may have no tokenizer.
        stop: The ids that end a row: what is fed to the model after one is padding.
    """

    def __init__(self, prompts: "Sequence[Transcript]", chat: "Callable[[], ChatFormat]", stop: Sequence[int]) -> None:
        self._prompts = prompts
        self._chat = chat
        self._stop = torch.tensor(stop, dtype=torch.long)
        self._lengths = torch.tensor([len(prompt) for prompt in prompts])
        self._ended = torch.zeros(len(prompts), dtype=torch.bool)
        self._unread: list[tuple[Tensor, Tensor]] = []
        self._writers: list[SegmentWriter] | None = None
        self._rows = [[CODES[label] for label in prompt.labels] for prompt in prompts]

    def note(self, index: Int[Tensor, "batch pos"], ids: Int[Tensor, "batch pos"]) -> Int[Tensor, "batch pos"]:
        """Takes in the tokens of a pass; the index of those after the end of their row becomes −1.

        A token may be shown again: without a KV cache each pass has the whole text.
        """
        self._stop, self._lengths, self._ended = (
            tensor.to(ids.device) for tensor in (self._stop, self._lengths, self._ended)
        )
        new = index >= self._lengths[:, None]
        after: Bool[Tensor, "batch pos"] = (torch.isin(ids, self._stop) & new).cumsum(-1) > 0
        after = after | self._ended[:, None]
        self._ended = after[:, -1]
        index = index.masked_fill(after, -1)
        self._unread.append((index, ids))
        return index

    def codes(self) -> Int[Tensor, "batch token"]:
        """See `SegmentTable`."""
        self._read()
        return _table(self._rows)

    def edges(self) -> Int[Tensor, " batch"]:
        """See `SegmentTable`."""
        edges = [NOT_REACHED if writer.edge is None else writer.edge for writer in self._read()]
        return torch.tensor(edges)

    def _read(self) -> list[SegmentWriter]:
        if self._writers is None:
            self._writers = [SegmentWriter(self._chat(), prompt) for prompt in self._prompts]
        for index, ids in self._unread:
            for row, (indices, tokens) in enumerate(zip(index.tolist(), ids.tolist(), strict=True)):
                for token_index, token in zip(indices, tokens, strict=True):
                    if token_index >= len(self._rows[row]):
                        self._rows[row].append(CODES[self._writers[row].read(token)])
        self._unread = []
        return self._writers


def _table(rows: Sequence[Sequence[int]]) -> Int[Tensor, "batch token"]:
    width = max((len(row) for row in rows), default=0)
    return torch.tensor([[*row, *[-1] * (width - len(row))] for row in rows], dtype=torch.long).reshape(-1, width)
