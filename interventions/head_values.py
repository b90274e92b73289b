"""What heads write in reference rollouts, segment by segment: what ablation by mean or by resampling puts in place.

A head writes something else at the edge than in the middle of the thinking, so a token is only ever replaced by values
from its own kind: the edge, or the segment that it lies in.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.errors import CliffscopeError
from interp.models.batching import Batch
from interp.models.capture import BATCH_TOKENS, stream
from interp.models.segment_table import TextSegments
from interp.models.token_context import TokenContext
from interp.transcripts import Transcript
from interp.transcripts.positions import SEGMENTS

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel

EDGE_KIND = len(SEGMENTS)
"""The code of the edge among the kinds; a segment's code is its place in `SEGMENTS`."""


@dataclass(frozen=True)
class HeadValues:
    """Values of `attn.hook_z` in reference rollouts, by kind of token.

    Attributes:
        means: For each layer and kind the mean over all its tokens: `[head, d_head]`.
        samples: For each layer and kind single tokens' values: `[sample, head, d_head]`; the same tokens in all layers.
    """

    means: Mapping[int, Mapping[int, Float[Tensor, "head d_head"]]]
    samples: Mapping[int, Mapping[int, Float[Tensor, "sample head d_head"]]]

    @classmethod
    def of(
        cls,
        model: "HookedModel",
        references: Sequence[Transcript],
        layers: Sequence[int],
        *,
        n_samples: int = 256,
        seed: int = 0,
        batch_tokens: int = BATCH_TOKENS,
    ) -> "HeadValues":
        """Reads the reference rollouts in one pass.

        Args:
            model: The model.
            references: For mean ablation usually benign rollouts.
            layers: Which layers will be changed.
            n_samples: Tokens of each kind to keep for resampling.
            seed: Of their choice.
            batch_tokens: Token budget of a batch.

        Raises:
            CliffscopeError: If there is no reference rollout.
        """
        if not references:
            raise CliffscopeError("references: none is given; mean and resample ablation need some rollouts.")
        kinds = kinds_of(_whole(references))
        chosen = _choose(kinds, n_samples, torch.Generator().manual_seed(seed))
        sums: dict[int, dict[int, Tensor]] = {layer: {} for layer in layers}
        counts: dict[int, int] = {int(kind): int((kinds == kind).sum()) for kind in kinds.unique() if kind >= 0}
        kept: dict[int, dict[int, list[Tensor]]] = {layer: {kind: [] for kind in counts} for layer in layers}

        def reduce(site: str, value: Tensor, batch: Batch) -> Tensor:
            layer, rows = int(site.split(".")[1]), list(batch.rows)
            mine, picked = (table[rows, : value.shape[1]] for table in (kinds, chosen))
            for kind in counts:
                total = value[(mine == kind).to(value.device)].float().sum(0).cpu()
                sums[layer][kind] = sums[layer].get(kind, torch.zeros_like(total)) + total
                kept[layer][kind].append(value[((mine == kind) & picked).to(value.device)].float().cpu())
            return value[:, :0]

        sites = [f"blocks.{layer}.attn.hook_z" for layer in layers]
        for _ in stream(model, references, sites, reduce, batch_tokens):
            pass
        means = {la: {kind: total / counts[kind] for kind, total in sums[la].items()} for la in layers}
        samples = {la: {kind: torch.cat(parts) for kind, parts in kept[la].items()} for la in layers}
        return cls(means, samples)


def kinds_of(tokens: TokenContext) -> Int[Tensor, "batch pos"]:
    """The kind of each column's token: its segment's place in `SEGMENTS`, or `EDGE_KIND`; −1 at padding.

    Raises:
        CliffscopeError: If the pass carries no transcripts.
    """
    kinds = torch.full_like(tokens.index, -1)
    for code, segment in enumerate(SEGMENTS):
        kinds = kinds.masked_fill(tokens.in_segment(segment), code)
    return kinds.masked_fill(tokens.index == tokens.edge[:, None], EDGE_KIND)


def kind_name(kind: int) -> str:
    """A kind in words."""
    return "edge" if kind == EDGE_KIND else SEGMENTS[kind]


def _whole(transcripts: Sequence[Transcript]) -> TokenContext:
    width = max(len(transcript) for transcript in transcripts)
    index = torch.arange(width).expand(len(transcripts), width)
    lengths = torch.tensor([len(transcript) for transcript in transcripts])[:, None]
    return TokenContext(torch.where(index < lengths, index, -1), transcripts, TextSegments(transcripts))


def _choose(kinds: Int[Tensor, "rollout pos"], n: int, generator: torch.Generator) -> Bool[Tensor, "rollout pos"]:
    """`n` tokens of each kind, or all where there are fewer."""
    chosen = torch.zeros_like(kinds, dtype=torch.bool)
    for kind in kinds.unique():
        places = (kinds == kind).nonzero()
        picked = places[torch.randperm(len(places), generator=generator)[:n]]
        chosen[picked[:, 0], picked[:, 1]] = True
    return chosen & (kinds >= 0)
