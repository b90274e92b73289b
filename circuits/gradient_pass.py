"""Passes up to the edge that keep what gradients with respect to z need, and can be repeated with other values of z."""

import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.sweeps.readouts import Readouts
from interp.judges.edge_logit import refusal_logit
from interp.models.batching import Batch, pad
from interp.models.capture import take_columns
from interp.models.hooks import hook
from interp.models.sites import Site
from interp.transcripts import Transcript
from probes.trajectory import check_probe

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel


@dataclass(frozen=True)
class Pass:
    """A forward pass that can be repeated with other values of z.

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

    def values(
        self, readouts: Readouts, layers: Iterable[int], change: Callable[[int, Tensor], Tensor]
    ) -> list[Float[Tensor, " batch"]]:
        """Each readout at the edge, when z of the layers is what `change` makes of it."""
        places = self.model.places
        read: dict[str, Tensor] = {}
        zs = {layer: places.find(Site(layer, "attn.hook_z")) for layer in layers}
        module = places.decoder if readouts.refusal_tokens is None else self.model.hf
        with contextlib.ExitStack() as stack:
            for layer, place in zs.items():
                stack.callback(hook(place, partial(change, layer)).remove)
            if readouts.probe is not None:
                site = Site.parse(check_probe(self.model, readouts.probe), self.model.n_layers)
                stack.callback(hook(places.find(site), partial(read.__setitem__, "probe")).remove)
            if readouts.refusal_tokens is not None:
                head = self.model.hf.get_output_embeddings()
                at_edge = head.register_forward_pre_hook(
                    lambda _, args: (take_columns(args[0], self.edge.to(args[0].device)),)
                )
                stack.callback(at_edge.remove)
            stack.enter_context(self.model.reading(self.transcripts, self.index))
            cache = None if self.cache is None else _copied(self.cache)
            output = module(
                input_ids=self.input_ids, past_key_values=cache, use_cache=cache is not None, **self.options
            )
        values = []
        if readouts.probe is not None:
            seen = read["probe"]
            values.append(readouts.probe.logit(take_columns(seen, self.edge.to(seen.device))[:, 0]))
        if readouts.refusal_tokens is not None:
            values.append(refusal_logit(output.logits[:, 0], readouts.refusal_tokens))
        return values


def whole_pass(
    model: "HookedModel", transcripts: Sequence[Transcript], texts: Sequence[Sequence[int]], rows: Sequence[int]
) -> Pass:
    """Over all tokens."""
    batch = pad(texts, rows, 0, "right", model.device)
    index = _token_index(batch)
    return Pass(model, [transcripts[row] for row in rows], batch.input_ids, index, index.argmax(-1, keepdim=True))


def edge_pass(
    model: "HookedModel", transcripts: Sequence[Transcript], texts: Sequence[Sequence[int]], rows: Sequence[int]
) -> Pass:
    """Over the edge alone: what comes before it does not change, and is run once, without gradients."""
    before = pad([text[:-1] for text in texts], rows, 0, "left", model.device)
    last = torch.tensor([texts[row][-1:] for row in rows], device=model.device)
    index, mask = _token_index(before), before.attention_mask
    edge = index[:, -1:] + 1
    options_before, options = {}, {}
    if not mask.all():  # without padding attention keeps its fast path
        options_before = {"attention_mask": mask, "position_ids": index.clamp(min=0)}
        options = {"attention_mask": torch.cat([mask, torch.ones_like(last)], dim=1), "position_ids": edge}
    chosen = [transcripts[row] for row in rows]
    with torch.no_grad(), model.reading(chosen, index):
        output = model.places.decoder(input_ids=before.input_ids, use_cache=True, **options_before)
    return Pass(model, chosen, last, edge, torch.zeros_like(last), options, output.past_key_values)


def _token_index(batch: Batch) -> Int[Tensor, "batch pos"]:
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
