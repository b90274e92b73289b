"""Which tokens a pass carries, where another library runs it: what interventions are told there."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int
from torch import Tensor

from interp.errors import CliffscopeError
from interp.models.generation import end_tokens
from interp.models.hooks import token_index
from interp.models.segment_table import TextSegments, WritingSegments
from interp.models.token_context import TokenContext

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel
    from interp.transcripts import Transcript


@dataclass(frozen=True)
class DecoderCall:
    """What a decoder was called with.

    Attributes:
        ids: The tokens of this pass; `None` where embeddings were given.
        index: Each column's token index, −1 at padding.
    """

    ids: Int[Tensor, "batch pos"] | None
    index: Int[Tensor, "batch pos"]

    @classmethod
    def of(cls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> "DecoderCall":
        """From the arguments, before the decoder runs and its cache grows."""
        return cls(args[0] if args else kwargs.get("input_ids"), token_index(args, kwargs))


class PassTokens:
    """Tells interventions of one batch, pass after pass, which tokens it carries.

    Args:
        model: Gives the thinking tags and the ids that end a text.
        transcripts: One a row, in the order of the rows: whole texts, or the prompts of a generation. Without them an
            intervention can act at all tokens only.
    """

    def __init__(self, model: "HookedModel", transcripts: Sequence["Transcript"] = ()) -> None:
        self._model = model
        self._transcripts = tuple(transcripts)
        self._lengths = torch.tensor([len(transcript) for transcript in transcripts])
        self._text = TextSegments(self._transcripts)
        self._writing: WritingSegments | None = None
        self._read: Int[Tensor, " batch"] | None = None

    def of(self, call: DecoderCall) -> TokenContext:
        """The tokens of a pass; to be asked once for each pass.

        Raises:
            CliffscopeError: If the rows are not the transcripts.
        """
        if not self._transcripts:
            return TokenContext(call.index)
        if call.ids is None:
            raise CliffscopeError("transcripts were given, but the pass carries embeddings: run it on token ids.")
        self._check_rows(call.ids, call.index)
        last = call.index.max(-1).values.cpu()
        if bool((last < self._lengths).all()):
            # A new text, or new texts.
            self._writing, self._read = None, last
            return TokenContext(call.index, self._transcripts, self._text)
        self._check_written(call.index, last)
        if self._writing is None:
            self._writing = WritingSegments(self._transcripts, lambda: self._model.chat, end_tokens(self._model))
        index = self._writing.note(call.index, call.ids)
        return TokenContext(index, self._transcripts, self._writing)

    def _check_rows(self, ids: Int[Tensor, "batch pos"], index: Int[Tensor, "batch pos"]) -> None:
        if len(ids) != len(self._transcripts):
            raise CliffscopeError(
                f"{len(self._transcripts)} transcripts were given for a batch of {len(ids)} rows: give one a row, in "
                "the order of the rows."
            )
        for transcript, row, places in zip(self._transcripts, ids.tolist(), index.tolist(), strict=True):
            for token, place in zip(row, places, strict=True):
                if 0 <= place < len(transcript) and token != transcript.input_ids[place]:
                    raise CliffscopeError(
                        f"transcript {transcript.id!r} has token {transcript.input_ids[place]} at {place}, the row has "
                        f"{token}: give the transcripts of these rows, run their input_ids (a second BOS may have been "
                        "added), and pass attention_mask where rows are padded."
                    )

    def _check_written(self, index: Int[Tensor, "batch pos"], last: Int[Tensor, " batch"]) -> None:
        """What lies beyond a transcript must have been written one token a pass, from the transcript's end on."""
        grown = None if self._read is None else (last - self._read).max()
        self._read = last
        if grown is None or grown > 1:
            row = int((last - self._lengths).argmax())
            raise CliffscopeError(
                f"transcript {self._transcripts[row].id!r} has {int(self._lengths[row])} tokens, its row has "
                f"{int(last[row]) + 1}: give the transcript of the whole row, and pass attention_mask where rows are "
                "padded."
            )
