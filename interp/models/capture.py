"""Reading values out of whole-text forward passes, at the cost of little more than the pass itself.

The pass stops after the deepest site asked for, the LM head runs only where logits are asked for, and values are
reduced on the device inside the hook, so that only what is wanted is ever stored. Batches are right-padded: under
causal attention no token sees what follows it, so no mask is needed and attention keeps its fast path.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.models.batching import Batch, PaddingSide, pad, plan_batches, run_halving
from interp.models.compiled import uncompiled
from interp.models.hooks import hook
from interp.models.sites import Site

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel
    from interp.transcripts import Transcript

BATCH_TOKENS = 8192
"""Tokens a batch, padding included, unless told otherwise."""

Reduce = Callable[[str, Tensor, Batch], Tensor]
"""Makes what is kept of a site's value `[batch, pos, ...]`; the result's first axis is still `batch`."""


class _AllRead(Exception):
    """Raised from inside a hook when every site has been read: the rest of the pass is not needed."""


@dataclass(frozen=True)
class Capture:
    """Values at sites and positions.

    Attributes:
        ids: The transcripts' ids, in the caller's order: the first axis.
        positions: The positions as asked for: the second axis.
        token_index: The token at which each position lies.
        values: For each site `[rollout, position, d_model]`, or `[rollout, position, head, d_head]` at `attn.hook_z`;
            float32 on the CPU.
    """

    ids: tuple[str, ...]
    positions: tuple[str | int, ...]
    token_index: Int[Tensor, "rollout position"]
    values: dict[str, Tensor]

    def __getitem__(self, site: str) -> Float[Tensor, "rollout position ..."]:
        return self.values[site]


def capture(
    model: "HookedModel",
    transcripts: Sequence["Transcript"],
    sites: Sequence[str],
    positions: Sequence[str | int],
    *,
    batch_tokens: int = BATCH_TOKENS,
    padding_side: PaddingSide = "right",
) -> Capture:
    """Reads sites at positions from one forward pass over each transcript.

    Args:
        model: The model; interventions that are active on it show in the values.
        transcripts: What to read; any lengths, any order.
        sites: Names as in `interp.models.sites`; a layer of −1 is the last.
        positions: Names or token indices as in `Transcript.position`.
        batch_tokens: Token budget of a batch, padding included; a batch is halved when memory runs out.
        padding_side: Changes nothing but the arithmetic's order.

    Raises:
        CliffscopeError: If a site does not exist or a transcript lacks a position.
    """
    token_index = token_indices(transcripts, positions)
    names = [str(Site.parse(site, model.n_layers)) for site in sites]
    values: dict[str, Tensor] = {}

    def at_positions(site: str, value: Tensor, batch: Batch) -> Tensor:
        return take_columns(value, token_index[list(batch.rows)].to(value.device) + batch.start[:, None])

    for batch, kept in stream(model, transcripts, names, at_positions, batch_tokens, padding_side):
        for site, value in kept.items():
            if site not in values:
                values[site] = torch.empty(len(transcripts), *value.shape[1:])
            values[site][list(batch.rows)] = value.float().cpu()
    by_request = {asked: values[name] for asked, name in zip(sites, names, strict=True) if values}
    return Capture(tuple(t.id for t in transcripts), tuple(positions), token_index, {**values, **by_request})


def logits(
    model: "HookedModel",
    transcripts: Sequence["Transcript"],
    positions: Sequence[str | int],
    *,
    reduce: Callable[[Tensor], Tensor] | None = None,
    batch_tokens: int = BATCH_TOKENS,
) -> Float[Tensor, "rollout position ..."]:
    """Next-token logits at positions; the LM head (with any softcap or scale) runs at these positions only.

    Args:
        model: The model.
        transcripts: What to read.
        positions: Names or token indices as in `Transcript.position`.
        reduce: Applied on the device to each batch's float32 logits `[batch, position, d_vocab]`; what it returns is
            kept in their place. A vocabulary is large: reduce where you can.
        batch_tokens: Token budget of a batch.

    Raises:
        CliffscopeError: If a transcript lacks a position.
    """
    token_index = token_indices(transcripts, positions)
    kept: list[Tensor | None] = [None] * len(transcripts)
    head = model.hf.get_output_embeddings()

    for rows in plan_batches([len(t.input_ids) for t in transcripts], batch_tokens):

        def run(part: Sequence[int]) -> Tensor:
            batch = _pad(model, transcripts, part, "right")
            columns = token_index[list(part)].to(model.device)
            handle = head.register_forward_pre_hook(lambda module, args: (take_columns(args[0], columns),))
            try:
                output = forward(model, model.hf, batch, transcripts)
            finally:
                handle.remove()
            values = output.logits.float()
            return (values if reduce is None else reduce(values)).cpu()

        for part, values in run_halving(rows, run):
            for row, value in zip(part, values, strict=True):
                kept[row] = value
    return torch.stack([value for value in kept if value is not None]) if transcripts else torch.empty(0)


def stream(
    model: "HookedModel",
    transcripts: Sequence["Transcript"],
    sites: Sequence[str],
    reduce: Reduce,
    batch_tokens: int = BATCH_TOKENS,
    padding_side: PaddingSide = "right",
) -> Iterator[tuple[Batch, dict[str, Tensor]]]:
    """Yields for each batch what `reduce` keeps of each site's value; stops each pass after the deepest site.

    Memory does not grow with sites × tokens × d_model: a value lives until `reduce` returns.
    """
    model.require_eval()
    parsed = [Site.parse(site, model.n_layers) for site in dict.fromkeys(sites)]
    places = {str(site): model.places.find(site) for site in parsed}

    def run(rows: Sequence[int]) -> tuple[Batch, dict[str, Tensor]]:
        batch = _pad(model, transcripts, rows, padding_side)
        kept: dict[str, Tensor] = {}

        def read(site: str, value: Tensor) -> None:
            kept[site] = reduce(site, value, batch)
            if len(kept) == len(places):
                raise _AllRead

        handles = [
            hook(place, lambda value, site=site: read(site, value))  # type: ignore[misc]
            for site, place in places.items()
        ]
        try:
            forward(model, model.places.decoder, batch, transcripts, masked=padding_side == "left")
        except _AllRead:
            pass
        finally:
            for handle in handles:
                handle.remove()
        return batch, kept

    for rows in plan_batches([len(t.input_ids) for t in transcripts], batch_tokens):
        for _, result in run_halving(rows, run):
            yield result


@torch.no_grad()
def forward(
    model: "HookedModel", module: Any, batch: Batch, transcripts: Sequence["Transcript"], masked: bool = False
) -> Any:
    """One pass of the decoder or the whole model over a batch, without a KV cache, and not as compiled code.

    Args:
        model: The model, whose interventions are told whose rows these are.
        module: `model.hf`, or `model.places.decoder` for no LM head.
        batch: Padded ids.
        transcripts: All transcripts; the batch names its rows.
        masked: Pass the mask and the position ids that follow from it: needed for left padding only.
    """
    index = (batch.attention_mask.cumsum(-1) - 1).masked_fill(batch.attention_mask == 0, -1)
    options: dict[str, Tensor] = {}
    if masked:
        options = {"attention_mask": batch.attention_mask, "position_ids": index.clamp(min=0)}
    with model.reading([transcripts[row] for row in batch.rows], index), uncompiled():
        return module(input_ids=batch.input_ids, use_cache=False, **options)


def take_columns(
    value: Float[Tensor, "batch pos *rest"], columns: Int[Tensor, "batch position"]
) -> Float[Tensor, "batch position *rest"]:
    """The given columns of each row."""
    rows = torch.arange(len(columns), device=columns.device)[:, None]
    return value[rows, columns]


def token_indices(
    transcripts: Sequence["Transcript"], positions: Sequence[str | int]
) -> Int[Tensor, "rollout position"]:
    """The token index of each position. Raises `CliffscopeError` if a transcript lacks one."""
    found = [[transcript.position(position) for position in positions] for transcript in transcripts]
    return torch.tensor(found, dtype=torch.long).reshape(len(transcripts), len(positions))


def _pad(model: "HookedModel", transcripts: Sequence["Transcript"], rows: Sequence[int], side: PaddingSide) -> Batch:
    # Any id will do: no token attends to padding.
    return pad([t.input_ids for t in transcripts], rows, 0, side, model.device)
