"""Sets of heads exchanged between rollouts at the edge: the refusal logit when many heads are another rollout's.

What comes before the edge is the same whichever heads are exchanged, so it is run once and its keys and values are
kept. A set then costs one token: copies of the edge lie side by side in one pass, each with a set of its own, and each
sees what comes before it and itself. When all heads are exchanged, all that the edge has read is the donor's, and so is
the refusal logit.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.sweeps.edges import Edges
from circuits.sweeps.masks import attention_with_masks
from circuits.sweeps.readouts import Readouts
from interp.errors import CliffscopeError
from interp.models.batching import plan_batches, run_halving
from interp.models.capture import BATCH_TOKENS
from interp.transcripts import Transcript
from interp.transcripts.positions import EDGE
from interventions.heads import check_heads

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel

Exchanged = Callable[[Sequence[int], int], Bool[Tensor, "row layer head"]]
"""`(rows, number)` → which heads of these recipients are the donor's in the set of that number."""

MOST_COPIES = 64
"""Of an edge in one pass: among copies attention grows with their square."""


class Exchange:
    """Recipients whose heads' z at the edge can be made that of their donors.

    Args:
        model: The model; interventions that are active on it act, and must stay as they are. It is not changed.
        recipients: Whose passes are changed.
        donors: Whose z is put there, one a recipient. Whether they align is not asked: see `interventions.pairs`. With
            `None` heads are zeroed instead.
        readouts: With refusal tokens, and nothing else is read; the model's own if not given.
        batch_tokens: Token budget of a pass. If the recipients' tokens are no more, their keys and values are kept.

    Raises:
        CliffscopeError: If a transcript has no edge, the numbers differ, or the model has no refusal tokens or is in
            training mode.
    """

    def __init__(
        self,
        model: "HookedModel",
        recipients: Sequence[Transcript],
        donors: Sequence[Transcript] | None,
        *,
        readouts: Readouts | None = None,
        batch_tokens: int = BATCH_TOKENS,
    ) -> None:
        model.require_eval()
        if donors is not None and len(recipients) != len(donors):
            raise CliffscopeError(f"exchange: expected one donor a recipient, found {len(recipients)}, {len(donors)}.")
        self.model = model
        self._readouts = Readouts(refusal_tokens=(readouts or Readouts.of(model)).refusal_tokens)
        self._recipients = [recipient.until_edge() for recipient in recipients]
        self._texts = [recipient.input_ids for recipient in self._recipients]
        self._batch_tokens = batch_tokens
        self._kept: dict[tuple[int, ...], Edges] | None = {} if sum(map(len, self._texts)) <= batch_tokens else None
        self._theirs = None if donors is None else self._values([donor.until_edge() for donor in donors])

    def _values(self, donors: Sequence[Transcript]) -> Float[Tensor, "layer row 1 head d_head"]:
        """What each donor's heads carry at its edge."""
        sources = {donor: row for row, donor in enumerate(dict.fromkeys(donors))}
        sites = [f"blocks.{layer}.attn.hook_z" for layer in range(self.model.n_layers)]
        captured = self.model.capture(list(sources), sites, [EDGE], batch_tokens=self._batch_tokens)
        return torch.stack([captured[site] for site in sites])[:, [sources[donor] for donor in donors]]

    def logits(
        self, n_sets: int, exchanged: Exchanged, advance: Callable[[int], object] = lambda rollouts: None
    ) -> Float[Tensor, "set row"]:
        """The refusal logit of every recipient with the heads of each set exchanged.

        Args:
            n_sets: How many sets.
            exchanged: Which heads; another set for every recipient if need be.
            advance: Told how many recipients more are done.

        Raises:
            CliffscopeError: If a logit is NaN or infinite.
        """
        found = torch.full((n_sets, len(self._texts)), torch.nan)

        def run(rows: Sequence[int]) -> Float[Tensor, "row set"]:
            return self._run(rows, n_sets, exchanged)

        with attention_with_masks(self.model):
            for batch in plan_batches([len(text) for text in self._texts], self._batch_tokens):
                for rows, values in run_halving(batch, run):
                    found[:, list(rows)] = values.T
                    advance(len(rows))
        for recipient, fine in zip(self._recipients, found.isfinite().all(0).tolist(), strict=True):
            if not fine:
                raise CliffscopeError(
                    f"Rollout {recipient.id!r}: the model's activations are NaN or infinite; try --dtype float32."
                )
        return found

    def of(self, *sets: Iterable[tuple[int, int]]) -> Float[Tensor, "set row"]:
        """The same for sets of heads that are exchanged in all recipients alike.

        Raises:
            CliffscopeError: If a head does not exist or is named twice, or a logit is NaN or infinite.
        """
        masks = torch.zeros(len(sets), self.model.n_layers, self.model.n_heads, dtype=torch.bool)
        for mask, heads in zip(masks, sets, strict=True):
            if chosen := list(heads):
                for layer, head in check_heads(chosen, self.model):
                    mask[layer, head] = True
        return self.logits(len(sets), lambda rows, number: masks[number].expand(len(rows), -1, -1))

    def _run(self, rows: Sequence[int], n_sets: int, exchanged: Exchanged) -> Float[Tensor, "row set"]:
        edges = self._edges(rows)
        copies = max(1, min(MOST_COPIES, self._batch_tokens // len(rows)))
        values = []
        for first in range(0, n_sets, copies):
            numbers = range(n_sets)[first : first + copies]
            mask = torch.stack([exchanged(rows, number) for number in numbers], dim=1)
            values.append(self._read(edges, rows, mask))
        return torch.cat(values, dim=1)

    def _edges(self, rows: Sequence[int]) -> Edges:
        """The edges of some recipients, made again for each run if they cannot be kept."""
        key = tuple(rows)
        edges = None if self._kept is None else self._kept.get(key)
        if edges is None:
            edges = Edges(self.model, [self._recipients[row] for row in rows])
            if self._kept is not None:
                self._kept[key] = edges
        return edges

    def _read(
        self, edges: Edges, rows: Sequence[int], mask: Bool[Tensor, "row set layer head"]
    ) -> Float[Tensor, "row set"]:
        """The refusal logits in one pass, each set on a copy of the edge."""
        theirs = None if self._theirs is None else self._theirs[:, list(rows)]

        def changed(layer: int, z: Float[Tensor, "row set head d_head"]) -> Float[Tensor, "row set head d_head"]:
            new = torch.zeros_like(z) if theirs is None else theirs[layer].to(z).expand_as(z)
            return torch.where(mask[:, :, layer, :, None].to(z.device), new, z)

        layers = [layer for layer in range(self.model.n_layers) if bool(mask[:, :, layer].any())]
        return edges.read(self._readouts, mask.shape[1], {layer: partial(changed, layer) for layer in layers})[..., 0]
