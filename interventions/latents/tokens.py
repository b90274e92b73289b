"""The activations that an autoencoder is trained on: tokens of chosen segments, shuffled, one batch after another.

Padding never is among them, and the first token of a text (BOS where the model has one) is not: its activations are
many times larger than all others in most models, and an autoencoder would spend its latents on it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import CliffscopeError
from interp.models.batching import Batch
from interp.models.capture import BATCH_TOKENS, stream
from interp.transcripts import Transcript
from interp.transcripts.positions import SEGMENTS

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel


def token_places(transcript: Transcript, segments: Sequence[str] = SEGMENTS) -> list[int]:
    """The indices of a text's tokens in segments, without its first token."""
    wanted = set(segments)
    return [index for index, label in enumerate(transcript.labels) if index > 0 and label in wanted]


def check_segments(segments: Sequence[str]) -> None:
    """Raises `CliffscopeError` for anything but names of segments."""
    if unknown := [name for name in segments if name not in SEGMENTS]:
        raise CliffscopeError(f"segment {unknown[0]!r}: expected one of {', '.join(SEGMENTS)}.")
    if not segments:
        raise CliffscopeError(f"segments: none is given; name some of {', '.join(SEGMENTS)}.")


def read_tokens(
    model: "HookedModel",
    transcripts: Sequence[Transcript],
    places: Sequence[Sequence[int]],
    site: str,
    batch_tokens: int = BATCH_TOKENS,
) -> Iterator[tuple[Batch, Float[Tensor, "token ..."]]]:
    """The activations of each batch's chosen tokens, row after row in the batch's order, on the device.

    Args:
        model: The model.
        transcripts: What to read.
        places: Token indices of each transcript.
        site: Where.
        batch_tokens: Token budget of a batch.
    """

    def chosen(_: str, value: Tensor, batch: Batch) -> Tensor:
        rows = [row for row, number in enumerate(batch.rows) for _ in places[number]]
        columns = [index for number in batch.rows for index in places[number]]
        return value[torch.tensor(rows, dtype=torch.long), torch.tensor(columns, dtype=torch.long)]

    for batch, kept in stream(model, transcripts, [site], chosen, batch_tokens):
        yield batch, kept[site]


@dataclass
class TokenBatches:
    """Batches of activations without end, as sae-lens' trainer takes them: an iterator.

    All tokens are read once if they fit into the buffer, and shuffled anew each time round. Otherwise the rollouts are
    shuffled, and read and mixed one buffer after another.

    Attributes:
        model: The model.
        transcripts: Whose tokens.
        site: Where they are read.
        segments: Which tokens.
        size: Tokens a batch.
        buffer: Most tokens held at once.
        seed: Of the order.
        batch_tokens: Token budget of a forward pass.

    Raises:
        CliffscopeError: If there are fewer tokens than a batch has.
    """

    model: "HookedModel"
    transcripts: Sequence[Transcript]
    site: str
    segments: Sequence[str] = SEGMENTS
    size: int = 512
    buffer: int = 262_144
    seed: int = 0
    batch_tokens: int = BATCH_TOKENS
    _places: list[list[int]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._places = [token_places(transcript, self.segments) for transcript in self.transcripts]
        if self.n_tokens < self.size:
            raise CliffscopeError(
                f"rollouts: {self.n_tokens} tokens of the segments {', '.join(self.segments)} to train on, fewer than "
                f"one step's {self.size}; add rollouts or segments."
            )
        self._order = torch.Generator().manual_seed(self.seed)
        self._batches = self._endless()

    @property
    def n_tokens(self) -> int:
        """How many different tokens there are."""
        return sum(map(len, self._places))

    def __iter__(self) -> Iterator[Tensor]:
        return self

    def __next__(self) -> Float[Tensor, "token d_in"]:
        return next(self._batches)

    def _endless(self) -> Iterator[Tensor]:
        everything = self._read(range(len(self.transcripts))) if self.n_tokens <= self.buffer else None
        rest: Tensor | None = None
        while True:
            for held in [everything] if everything is not None else self._buffers():
                mixed = held if rest is None else torch.cat([rest, held])
                mixed = mixed[torch.randperm(len(mixed), generator=self._order).to(mixed.device)]
                whole = len(mixed) // self.size * self.size
                yield from mixed[:whole].split(self.size)
                rest = mixed[whole:] if everything is None else None

    def _buffers(self) -> Iterator[Tensor]:
        """The rollouts in a random order, in groups of about as many tokens as the buffer holds."""
        group: list[int] = []
        held = 0
        for number in torch.randperm(len(self.transcripts), generator=self._order).tolist():
            if group and held + len(self._places[number]) > self.buffer:
                yield self._read(group)
                group, held = [], 0
            group.append(number)
            held += len(self._places[number])
        yield self._read(group)

    def _read(self, rows: Sequence[int]) -> Float[Tensor, "token d_in"]:
        transcripts = [self.transcripts[row] for row in rows]
        places = [self._places[row] for row in rows]
        parts = [
            kept.flatten(1).float()
            for _, kept in read_tokens(self.model, transcripts, places, self.site, self.batch_tokens)
        ]
        found = torch.cat(parts)
        if broken := int((~torch.isfinite(found)).any(-1).sum()):
            raise CliffscopeError(
                f"activations: NaN or infinite at {self.site} at {broken} of {len(found)} tokens; load the model in "
                "float32 or bfloat16, or leave the rollouts out."
            )
        return found
