"""Passes up to the edge that can be differentiated, and repeated with other values at some place in them."""

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.models.batching import Batch, pad
from interp.models.capture import take_columns
from interp.models.kv_cache import cache_in, cache_option
from interp.transcripts import Transcript

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel


@dataclass(frozen=True)
class Pass:
    """A forward pass over some rows that can be repeated, under other hooks each time.

    Attributes:
        model: The model.
        transcripts: Whose rows these are.
        input_ids: The tokens to run: all up to the edge, padded on the right; or the edge alone.
        index: Each column's token index, −1 at padding.
        edge: The column of each row's edge.
        options: The mask and positions, where the model cannot count them itself.
        cache: Keys and values of the tokens before.
    """

    model: "HookedModel"
    transcripts: Sequence[Transcript]
    input_ids: Int[Tensor, "batch pos"]
    index: Int[Tensor, "batch pos"]
    edge: Int[Tensor, "batch 1"]
    options: Mapping[str, Tensor] = field(default_factory=dict)
    cache: Any = None

    def run(self, module: Any) -> Any:
        """What the model, or its decoder, returns; gradients are kept if they are enabled."""
        cache = None if self.cache is None else _copied(self.cache)
        with self.model.reading(self.transcripts, self.index):
            return module(
                input_ids=self.input_ids, use_cache=cache is not None, **cache_option(module, cache), **self.options
            )

    def take(self, rows: Sequence[int]) -> "Pass":
        """The same pass over some of its rows, in another order and as often as they are named."""
        at = torch.tensor(list(rows), device=self.input_ids.device)
        cache = None if self.cache is None else _copied(self.cache)
        if cache is not None:
            cache.batch_select_indices(at)
        return replace(
            self,
            transcripts=[self.transcripts[row] for row in rows],
            input_ids=self.input_ids[at],
            index=self.index[at],
            edge=self.edge[at],
            options={name: value[at] for name, value in self.options.items()},
            cache=cache,
        )

    def logits(self) -> Float[Tensor, "batch d_vocab"]:
        """The next-token logits at the edge; the LM head runs there only."""
        head = self.model.hf.get_output_embeddings()
        handle = head.register_forward_pre_hook(lambda _, args: (take_columns(args[0], self.edge.to(args[0].device)),))
        try:
            logits: Tensor = self.run(self.model.hf).logits[:, 0]
        finally:
            handle.remove()
        return logits


def whole_pass(
    model: "HookedModel", transcripts: Sequence[Transcript], texts: Sequence[Sequence[int]], rows: Sequence[int]
) -> Pass:
    """Over all tokens."""
    batch = pad(texts, rows, 0, "right", model.device)
    index = index_in_rows(batch)
    return Pass(model, [transcripts[row] for row in rows], batch.input_ids, index, index.argmax(-1, keepdim=True))


def edge_pass(
    model: "HookedModel", transcripts: Sequence[Transcript], texts: Sequence[Sequence[int]], rows: Sequence[int]
) -> Pass:
    """Over the edge alone: what comes before it does not change, and is run once, without gradients."""
    before = pad([text[:-1] for text in texts], rows, 0, "left", model.device)
    last = torch.tensor([texts[row][-1:] for row in rows], device=model.device)
    index, mask = index_in_rows(before), before.attention_mask
    edge = index[:, -1:] + 1
    options_before, options = {}, {}
    if not mask.all():  # without padding attention keeps its fast path
        options_before = {"attention_mask": mask, "position_ids": index.clamp(min=0)}
        options = {"attention_mask": torch.cat([mask, torch.ones_like(last)], dim=1), "position_ids": edge}
    chosen = [transcripts[row] for row in rows]
    with torch.no_grad(), model.reading(chosen, index):
        output = model.places.decoder(input_ids=before.input_ids, use_cache=True, **options_before)
    return Pass(model, chosen, last, edge, torch.zeros_like(last), options, cache_in(output))


def index_in_rows(batch: Batch) -> Int[Tensor, "batch pos"]:
    """Each column's token index in its row, −1 at padding."""
    mask = batch.attention_mask
    return (mask.cumsum(-1) - 1).masked_fill(mask == 0, -1)


def _copied(cache: Any) -> Any:
    """A cache that can be added to: its layers grow by concatenation, so the tensors can be shared."""
    copied = copy.copy(cache)
    copied.layers = [copy.copy(layer) for layer in cache.layers]
    return copied


@contextlib.contextmanager
def without_parameter_gradients(model: "HookedModel") -> Iterator[None]:
    """Saves the backward pass what no one asks for; on leaving, the parameters are as before."""
    trained = [parameter for parameter in model.hf.parameters() if parameter.requires_grad]
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
