"""The logits at the edge as a function of the value at one site and position, which can be differentiated.

Where only the edge changes, what comes before it is run once and its keys and values are kept: each evaluation is then
a pass over one token a rollout.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import CliffscopeError
from interp.judges.edge_logit import refusal_logit, refusal_token_ids
from interp.models.batching import plan_batches, run_halving
from interp.models.capture import BATCH_TOKENS
from interp.models.hooks import hook_to_change
from interp.models.passes import Pass, edge_pass, whole_pass
from interp.models.sites import Site
from interp.transcripts import Transcript

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel

T = TypeVar("T")

KEPT = 4
"""A pass over whole texts that keeps what a backward pass needs takes about so many times the memory."""


@dataclass(frozen=True, eq=False)
class SitePass:
    """Some rollouts' pass up to the edge, with the value at a site and position to be given.

    Attributes:
        tokens: The pass.
        site: Which value.
        columns: The column of each row at which it stands.
        refusal_tokens: What is read: the odds of these tokens.
    """

    tokens: Pass
    site: Site
    columns: Int[Tensor, " batch"]
    refusal_tokens: tuple[int, ...]

    @property
    def device(self) -> torch.device:
        """Where values are computed with."""
        return self.tokens.model.device

    def __call__(self, h: Float[Tensor, "batch width"] | None = None) -> Float[Tensor, " batch"]:
        """The refusal logit of each row in float32 when its value is `h`, or as it is if `None`."""
        return refusal_logit(self.logits(h), self.refusal_tokens)

    def logits(self, h: Float[Tensor, "batch width"] | None = None) -> Float[Tensor, "batch d_vocab"]:
        """All next-token logits at the edge of each row when its value is `h`, or as it is if `None`."""

        def put(value: Tensor) -> Tensor:
            assert h is not None
            new = value.clone()
            rows = torch.arange(len(new), device=value.device)
            new[rows, self.columns.to(value.device)] = h.to(value).reshape(len(h), *value.shape[2:])
            return new

        handles = [] if h is None else hook_to_change(self.tokens.model.places, self.site, put)
        try:
            return self.tokens.logits()
        finally:
            for handle in handles:
                handle.remove()


def site_pass(
    model: "HookedModel", transcripts: Sequence[Transcript], rows: Sequence[int], site: Site, position: str | int
) -> SitePass:
    """The pass of some transcripts, which end at their edges; one named several times is run up to there once."""
    once = list(dict.fromkeys(rows))
    at_edge = all(transcripts[row].position(position) == len(transcripts[row]) - 1 for row in once)
    tokens = (edge_pass if at_edge else whole_pass)(model, transcripts, [t.input_ids for t in transcripts], once)
    if len(once) < len(rows):
        place = {row: number for number, row in enumerate(once)}
        tokens = tokens.take([place[row] for row in rows])
    wanted = torch.tensor([transcripts[row].position(position) for row in rows], device=tokens.index.device)
    columns = (tokens.index == wanted[:, None]).int().argmax(-1)
    refusal = refusal_token_ids(model.tokenizer, model.chat.thinking.close)
    return SitePass(tokens, site, columns, refusal)


def batches_of(
    transcripts: Sequence[Transcript], position: str | int, batch_tokens: int = BATCH_TOKENS
) -> list[list[int]]:
    """Rows of similar length whose differentiated passes fit a token budget."""
    at_edge = all(transcript.position(position) == len(transcript) - 1 for transcript in transcripts)
    return plan_batches([len(t) for t in transcripts], batch_tokens if at_edge else max(1, batch_tokens // KEPT))


def over_passes(
    model: "HookedModel",
    transcripts: Sequence[Transcript],
    recipients: Sequence[int],
    site: Site,
    position: str | int,
    work: Callable[[Sequence[int], SitePass], T],
    batch_tokens: int = BATCH_TOKENS,
) -> Iterator[tuple[Sequence[int], T]]:
    """What `work` makes of the passes of some transcripts, each of which may receive several times.

    Args:
        model: The model.
        transcripts: Those that end at their edges.
        recipients: Which of them, in any order.
        site: Of the value to be given.
        position: Of the value to be given.
        work: Takes places in `recipients` and their pass.
        batch_tokens: Token budget of a pass; a batch is halved when memory runs out.

    Yields:
        The places and what was made of them.
    """
    for batch in batches_of([transcripts[row] for row in recipients], position, batch_tokens):
        yield from run_halving(
            batch,
            lambda places: work(
                places, site_pass(model, transcripts, [recipients[place] for place in places], site, position)
            ),
        )


def values_at(
    model: "HookedModel",
    transcripts: Sequence[Transcript],
    site: Site,
    position: str | int,
    batch_tokens: int = BATCH_TOKENS,
) -> Float[Tensor, "rollout width"]:
    """The value of each transcript there, flat; float32 on the CPU.

    Raises:
        CliffscopeError: If one is NaN or infinite.
    """
    found = model.capture(transcripts, [str(site)], [position], batch_tokens=batch_tokens)[str(site)][:, 0].flatten(1)
    for transcript, value in zip(transcripts, found, strict=True):
        if not bool(torch.isfinite(value).all()):
            raise CliffscopeError(
                f"Rollout {transcript.id!r}: the model's activations at {site} are NaN or infinite; "
                "try --dtype float32."
            )
    return found
