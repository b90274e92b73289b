"""The reference for all sweeps: one full forward pass with logits for each head, one rollout at a time, plain hooks."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from circuits.sweeps.readouts import Readouts
from interp.models.hooked_model import HookedModel
from interp.models.hooks import unpack
from interp.models.sites import Site, resid_post
from interp.transcripts import Transcript
from probes.linear import LinearProbe
from tests.architectures import random_model

TOKENS = (5, 7, 11)
"""Stand for the tokens that start a refusal."""
LAYER = 1
"""Where the probe reads, of three layers."""

Change = Callable[[int, int, Tensor], Tensor]


def wrapped(name: str, attention: str = "sdpa") -> HookedModel:
    hf = random_model(name)
    hf.set_attn_implementation(attention)
    return HookedModel(hf, name=name)


def rollouts(edges: Sequence[int] = (4, 27, 16), after: Sequence[int] = (0, 3, 0)) -> list[Transcript]:
    """Random texts with the edge at the given tokens, some of them going on after it."""
    generator = torch.Generator().manual_seed(4)
    made = []
    for number, (edge, more) in enumerate(zip(edges, after, strict=True)):
        ids = torch.randint(3, 96, (edge + 1 + more,), generator=generator).tolist()
        labels = ("template",) * edge + ("close",) + ("response",) * more
        made.append(Transcript(f"r{number}", tuple(ids), ("",) * len(ids), labels, edge, "closed"))
    return made


def some_probe(site: str = resid_post(LAYER)) -> LinearProbe:
    return LinearProbe(torch.randn(32, generator=torch.Generator().manual_seed(5)), 0.3).at(site=site)


def both(site: str = resid_post(LAYER)) -> Readouts:
    return Readouts(some_probe(site), TOKENS)


def brute_force(
    model: HookedModel,
    transcripts: Sequence[Transcript],
    change: Change,
    starts: Sequence[int] | None = None,
    ablated: Iterable[tuple[int, int]] = (),
) -> tuple[Tensor, Tensor]:
    """`(base [rollout, 2], changed [rollout, layer, head, 2])`: probe logit at `LAYER`'s output, refusal logit.

    Args:
        model: The model.
        transcripts: The rollouts.
        change: `(row, layer, z of the positions from the start on)` → what they would be.
        starts: The first position that changes; all if not given.
        ablated: Heads changed in every run.
    """
    base = torch.empty(len(transcripts), 2)
    changed = torch.empty(len(transcripts), model.n_layers, model.n_heads, 2)
    for row in range(len(transcripts)):
        start = 0 if starts is None else starts[row]
        base[row] = one_run(model, transcripts[row], row, change, start, ablated)
        for layer in range(model.n_layers):
            for head in range(model.n_heads):
                heads = [*ablated, (layer, head)]
                changed[row, layer, head] = one_run(model, transcripts[row], row, change, start, heads)
    return base, changed


def one_run(
    model: HookedModel,
    transcript: Transcript,
    row: int,
    change: Change,
    start: int,
    heads: Iterable[tuple[int, int]],
) -> Tensor:
    """The two readouts of one rollout with some heads changed."""
    ids = transcript.input_ids[: transcript.edge + 1]
    index = torch.arange(len(ids))[None]
    seen: list[Tensor] = []
    by_layer: dict[int, list[int]] = {}
    for layer, head in heads:
        by_layer.setdefault(layer, []).append(head)

    def hook_of(layer: int) -> Callable[..., tuple[Tensor]]:
        def replace(module: object, args: tuple[Tensor]) -> tuple[Tensor]:
            z = args[0].clone().unflatten(-1, (model.n_heads, -1))
            z[0, start:, by_layer[layer]] = change(row, layer, z[0, start:])[:, by_layer[layer]]
            return (z.flatten(-2),)

        return replace

    projection = {layer: model.places.find(Site(layer, "attn.hook_z")).module for layer in by_layer}
    handles = [projection[layer].register_forward_pre_hook(hook_of(layer)) for layer in by_layer]
    handles.append(model.places.blocks[LAYER].register_forward_hook(lambda m, a, output: seen.append(unpack(output))))
    try:
        with torch.no_grad(), model.reading([transcript], index):
            logits = model.hf(torch.tensor([ids]), use_cache=False).logits[0, -1].float()
    finally:
        for handle in handles:
            handle.remove()
    chosen = logits.softmax(-1)[list(TOKENS)].double().sum()
    return torch.stack([some_probe().logit(seen[0][0, -1]), torch.logit(chosen).float()])
