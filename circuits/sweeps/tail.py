"""Each head changed alone at the last positions, up to the edge: all heads as one short sequence after the prefix.

What comes before the changed positions is the same for every head, and so are its keys and values:

1. One ordinary pass over the text leaves the keys and values of the prefix, and what each block returned at the tail
   (the positions that change).
2. Copies of the tail, one for each head, are laid side by side as the tokens of one sequence that follows the prefix.
   The attention mask lets a copy see the prefix and itself, as far as the tail saw them in the ordinary pass (which
   carries over sliding windows), and no other copy. So all share the prefix's keys and values.
3. A copy differs from the tail only from its head's layer on, so a pass starts at the lowest layer of its heads. Few
   heads a pass would mean many small passes, many heads blocks that copies go through unchanged: a quarter of the
   layers at a time costs little of either.

The tail itself rides along as the last copy; if it does not give what the ordinary pass gave, that is an error.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.sweeps.effects import Replace, Sweep, SweepEffects
from circuits.sweeps.masks import attention_with_masks, given_masks, recorded_masks, side_by_side
from circuits.sweeps.readouts import Readouts, read
from circuits.sweeps.replay import changed_heads, recording, skipped
from interp.errors import CliffscopeError
from interp.models.batching import run_halving
from interp.models.capture import BATCH_TOKENS
from interp.models.hooks import repack, unpack
from interp.models.kv_cache import cache_option, new_cache, unchanged
from interventions.heads import Head

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel
    from interp.transcripts import Transcript

SMALL = 64
"""Tokens below which heads of more layers share a pass all the same, so that a device has enough to do at once."""


def sweep_tail(
    model: "HookedModel",
    transcripts: "Sequence[Transcript]",
    readouts: Readouts,
    replace: Replace,
    *,
    start: Sequence[int] | None = None,
    heads: Iterable[tuple[int, int]] | None = None,
    ablated: Iterable[tuple[int, int]] = (),
    batch_tokens: int = BATCH_TOKENS,
    advance: Callable[[int], object] = lambda rollouts: None,
) -> SweepEffects:
    """The readouts at the edge with each head alone changed from a position on.

    Interventions and masks that are attached to the model act throughout. The model is not changed.

    Args:
        model: The model. Attention that takes no mask (FlashAttention) is replaced by PyTorch's own meanwhile.
        transcripts: What to read; whatever follows an edge is left out.
        readouts: What to read.
        replace: What z would be.
        start: The first position of each transcript that changes, a token index; the edge if not given.
        heads: The heads to sweep; all if not given.
        ablated: Heads changed in the base and in every variant alike, by the same rule and at the same positions.
        batch_tokens: Most tokens of a pass besides the prefix (at least one copy of the tail goes through). The keys
            and values of one rollout are held. Heads are halved when memory runs out.
        advance: Told how many rollouts more are done.

    Raises:
        CliffscopeError: If a transcript has no edge or `start` lies behind it, the probe or a head does not fit the
            model, the model is in training mode or cannot be run from a block on, or activations are NaN or infinite.
    """
    sweep = Sweep(model, transcripts, readouts, replace, heads, ablated, advance)
    starts = [len(transcript) - 1 for transcript in sweep.transcripts] if start is None else list(start)
    for transcript, first in zip(sweep.transcripts, starts, strict=True):
        if not 0 <= first < len(transcript):
            raise CliffscopeError(
                f"rollout {transcript.id!r}: cannot change it from token {first} on; its edge is token "
                f"{len(transcript) - 1}."
            )
    with attention_with_masks(model):
        for row, first in enumerate(starts):
            _sweep_rollout(sweep, row, first, batch_tokens)
            sweep.advance(1)
    return sweep.effects()


def _sweep_rollout(sweep: Sweep, row: int, start: int, batch_tokens: int) -> None:
    """All heads of one rollout."""
    tail = _Tail(sweep, row, start)
    quarter = max(len(sweep.heads) // 4, SMALL // tail.length)
    per_pass = max(1, min(batch_tokens // tail.length - 1, quarter))

    def run(part: Sequence[int]) -> Tensor:
        return tail.variants([sweep.heads[number] for number in part])

    for first in range(0, len(sweep.heads), per_pass):
        for part, values in run_halving(range(len(sweep.heads))[first : first + per_pass], run):
            for number, value in zip(part, values, strict=True):
                sweep.changed[row, *sweep.heads[number]] = value


class _Tail:
    """The last tokens of a rollout, the keys and values before them, and what an ordinary pass left behind."""

    def __init__(self, sweep: Sweep, row: int, start: int) -> None:
        self._sweep, self._row, self._start, self._model = sweep, row, start, sweep.model
        transcript = sweep.transcripts[row]
        self.length = len(transcript) - start
        ids = torch.tensor([transcript.input_ids], device=self._model.device)
        self._ids = ids[:, start:]
        self._cache = new_cache()
        edge = torch.tensor([[len(transcript) - 1]])
        index = torch.arange(len(transcript))[None]
        # The recording's hooks come first: it sees z before the changes of the base.
        with (
            recording(self._model, start) as self._record,
            recorded_masks(self._model, start) as self._masks,
            changed_heads(self._model, self._changes((), 1)),
        ):
            sweep.keep_base([row], self._read(edge, index, ids))
        self._cache.crop(-self.length)

    def variants(self, heads: Sequence[Head]) -> Float[Tensor, "variant readout"]:
        """The readouts with each of these heads changed alone; heads ascend."""
        model, first, copies = self._model, heads[0].layer, len(heads) + 1
        positions = torch.arange(self._start, self._start + self.length, device=self._ids.device).repeat(copies)[None]
        edges = torch.arange(1, copies + 1)[None] * self.length - 1
        with ExitStack() as stack:
            if first:
                before = self._record.output[first - 1]
                stack.enter_context(
                    skipped(model.places.blocks[:first], repack(before, unpack(before).repeat(1, copies, 1)))
                )
            stack.enter_context(given_masks(model, side_by_side(self._masks, self.length, copies)))
            stack.enter_context(changed_heads(model, self._changes(heads, copies)))
            stack.enter_context(unchanged(self._cache))
            values = self._read(edges, positions, self._ids.repeat(1, copies), position_ids=positions)
        self._sweep.check_replay(self._row, first, values[-1])
        return values[:-1]

    def _read(self, edges: Tensor, index: Tensor, ids: Tensor, **options: Any) -> Float[Tensor, "variant readout"]:
        transcripts = [self._sweep.transcripts[self._row]]
        options |= cache_option(self._model.hf, self._cache) | {"use_cache": True}
        device = self._model.device
        return read(
            self._model,
            self._sweep.readouts,
            edges.to(device),
            transcripts,
            index.to(device),
            input_ids=ids,
            **options,
        )[0]

    def _changes(self, heads: Sequence[Head], copies: int) -> dict[int, Callable[[Tensor], Tensor]]:
        """What becomes of z in a pass that ends with copies of the tail, of which the first have a head each."""
        return {
            layer: lambda z, layer=layer: self._change(layer, heads, copies, z)  # type: ignore[misc]
            for layer in range(self._model.n_layers)
            if self._sweep.ablates(layer) or any(head.layer == layer for head in heads)
        }

    def _change(self, layer: int, heads: Sequence[Head], copies: int, z: Tensor) -> Tensor:
        before, tails = z[0].split([z.shape[1] - copies * self.length, copies * self.length])
        tails = tails.unflatten(0, (copies, self.length))
        changed = torch.stack([self._sweep.ablate(self._row, layer, tail) for tail in tails])
        mine = [(copy, head.head) for copy, head in enumerate(heads) if head.layer == layer]
        if mine:
            # At their own layer the copies are still the same as the last, which is the tail itself.
            new = self._sweep.new(self._row, layer, tails[-1])
            for copy, head in mine:
                changed[copy, :, head] = new[:, head]
        return torch.cat([before, changed.flatten(0, 1)])[None]
