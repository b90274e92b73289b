"""Copies of the edges of several rollouts in one pass, side by side after what comes before them."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.sweeps.masks import given_masks, recorded_masks, side_by_side
from circuits.sweeps.readouts import Readouts, read
from circuits.sweeps.replay import changed_heads
from interp.models.batching import pad
from interp.models.kv_cache import cache_option, new_cache, unchanged
from interp.models.passes import index_in_rows
from interp.transcripts import Transcript

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel


class Edges:
    """The last tokens of some rollouts, and the keys, values and masks of all before them.

    Args:
        model: The model; interventions that are active on it act.
        transcripts: Rollouts whose last token is the edge.

    Raises:
        CliffscopeError: If an attention is given no mask that could be laid side by side.
    """

    @torch.no_grad()
    def __init__(self, model: "HookedModel", transcripts: Sequence[Transcript]) -> None:
        self._model, self._transcripts = model, transcripts
        texts = [transcript.input_ids for transcript in transcripts]
        batch = pad(texts, range(len(texts)), 0, "left", model.device)
        index, mask = index_in_rows(batch), batch.attention_mask
        # Without padding attention keeps its fast path.
        options = {} if mask.all() else {"attention_mask": mask, "position_ids": index.clamp(min=0)}
        self._cache = new_cache()
        decoder = model.places.decoder
        last = mask.shape[1] - 1
        with model.reading(transcripts, index), recorded_masks(model, last) as self._masks:
            decoder(input_ids=batch.input_ids, use_cache=True, **cache_option(decoder, self._cache), **options)
        self._cache.crop(-1)
        self._ids, self._index = batch.input_ids[:, -1:], index[:, -1:]

    def read(
        self, readouts: Readouts, copies: int, changes: Mapping[int, Callable[[Tensor], Tensor]]
    ) -> Float[Tensor, "rollout copy readout"]:
        """The readouts at each copy of the edges.

        Args:
            readouts: What to read.
            copies: How many.
            changes: By layer, what z `[rollout, copy, head, d_head]` becomes.
        """
        columns = torch.arange(copies, device=self._ids.device).expand(len(self._ids), -1)
        index = self._index.expand(-1, copies)
        options: dict[str, Any] = {"input_ids": self._ids.expand(-1, copies), "position_ids": index, "use_cache": True}
        options |= cache_option(self._model.hf, self._cache)
        with (
            given_masks(self._model, side_by_side(self._masks, 1, copies)),
            changed_heads(self._model, changes),
            unchanged(self._cache),
        ):
            return read(self._model, readouts, columns, self._transcripts, index, **options)
