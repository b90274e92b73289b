"""Which entries of a model's parameters belong to chosen query heads: query rows and output columns.

The output columns follow from the layout of z, `[head, d_head]`, which the output projection reads. The query rows are
found by watching the attention, because they may stand anywhere: in a projection of their own, before keys and values
(Phi-3, GPT-2), or between those of each head (GPT-NeoX). In place of the values of each projection come random ones,
and the gradients of a head's z at the last of a few tokens tell them apart:

    query rows matter at the last token only; keys and values matter at earlier tokens, too.

A row belongs to the head that it moves most: where a norm runs over all heads' queries (OLMo 2) it moves others a
little. A head must get exactly d_head rows of one module, else the model is refused.

Keys and values are shared by heads under grouped-query attention, and query norms and the output's bias by all heads:
they are nobody's, and stay as they are.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from interp.errors import CliffscopeError
from interp.models.hooked_model import HookedModel
from interventions.heads import Head, check_heads

_TOKENS = 3
"""Of the text that the attention reads; ids do not matter."""
_DRAWS = 8
"""Of random values."""


def head_entries(model: HookedModel, heads: Sequence[Head]) -> dict[str, Bool[Tensor, "..."]]:
    """By parameter name, which entries are the heads' own. The model is not changed.

    Args:
        model: Plain, on any device.
        heads: Query heads.

    Raises:
        CliffscopeError: If the model lacks a head, or its query rows cannot be told.
    """
    names = {id(parameter): name for name, parameter in model.hf.named_parameters()}
    entries: dict[str, Tensor] = {}

    def mark(parameter: Any, axis: int, indices: Tensor) -> None:
        own = entries.setdefault(names[id(parameter)], torch.zeros_like(parameter, dtype=torch.bool))
        own.index_fill_(axis, indices.to(own.device), True)

    for layer, chosen in _by_layer(check_heads(heads, model)).items():
        queries, rows = query_rows(model, layer)
        output = model.places.output_projection(layer)
        for head in chosen:
            mark(queries.weight, 0 if isinstance(queries, nn.Linear) else 1, rows[head])
            if queries.bias is not None:
                mark(queries.bias, 0, rows[head])
            columns = torch.arange(head * model.d_head, (head + 1) * model.d_head)
            mark(output.weight, 1 if isinstance(output, nn.Linear) else 0, columns)
    return entries


def query_rows(model: HookedModel, layer: int) -> tuple[Any, Int[Tensor, "head d_head"]]:
    """The module that makes a layer's queries, and which of its outputs are those of each head.

    Raises:
        CliffscopeError: If that cannot be told.
    """
    output = model.places.output_projection(layer)
    modules = [m for m in linear_layers(model.places.attention(layer)).values() if m is not output]
    owners = {module: owner for module, owner in zip(modules, _owners(model, layer, modules), strict=True)}
    found = [module for module, owner in owners.items() if bool((owner >= 0).any())]
    counts = owners[found[0]][owners[found[0]] >= 0].bincount(minlength=model.n_heads) if found else torch.zeros(0)
    if len(found) != 1 or counts.tolist() != [model.d_head] * model.n_heads:
        raise CliffscopeError(
            f"{model.name}: the query rows of layer {layer} cannot be told apart in {model.places.architecture}; "
            'train with trainable="lora" or "all".'
        )
    owner = owners[found[0]]
    return found[0], torch.stack([(owner == head).nonzero().flatten() for head in range(model.n_heads)])


def linear_layers(module: nn.Module) -> dict[str, Any]:
    """The linear layers inside a module by their names in it; GPT-2 writes them as `Conv1D`."""
    from transformers.pytorch_utils import Conv1D

    return {name: part for name, part in module.named_modules() if isinstance(part, nn.Linear | Conv1D)}


def _by_layer(heads: Sequence[Head]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = defaultdict(list)
    for layer, head in heads:
        found[layer].append(head)
    return found


class _Read(Exception):
    """z was read; the rest of the forward pass is not needed."""


@torch.enable_grad()
def _owners(model: HookedModel, layer: int, modules: Sequence[Any]) -> list[Int[Tensor, " output"]]:
    """For each output of each module the head whose query it is part of, -1 for keys, values and anything else."""
    generator = torch.Generator().manual_seed(0)
    early: list[Tensor] = [torch.zeros(())] * len(modules)
    last: list[Tensor] = [torch.zeros(())] * len(modules)
    one_hot = torch.eye(model.n_heads)
    for _ in range(_DRAWS):
        values, z = _with_random_values(model, layer, modules, generator)
        weights = torch.randn(z.shape[-1], generator=generator).to(z)
        for head in range(model.n_heads):
            gradients = torch.autograd.grad((z[-1, head] * weights).sum(), values, retain_graph=True, allow_unused=True)
            for number, (value, gradient) in enumerate(zip(values, gradients, strict=True)):
                size = (torch.zeros_like(value) if gradient is None else gradient).flatten(0, -2).square().cpu()
                early[number] = early[number] + size[:-1].sum(0)
                last[number] = last[number] + one_hot[head, :, None] * size[-1]
    # As shares: one head's attention may be far steeper than another's, which its neighbours would then belong to.
    shares = [at_last / at_last.sum(-1, keepdim=True).clamp(min=1e-30) for at_last in last]
    return [
        torch.where((before == 0) & (at_last.sum(0) > 0), share.argmax(0), -1)
        for before, at_last, share in zip(early, last, shares, strict=True)
    ]


def _with_random_values(
    model: HookedModel, layer: int, modules: Sequence[Any], generator: torch.Generator
) -> tuple[list[Tensor], Float[Tensor, "pos head d_head"]]:
    """Random values of the modules, and what the heads make of them."""
    values: dict[int, Tensor] = {}
    found: list[Tensor] = []

    def replace(number: int) -> Callable[..., Tensor]:
        def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
            drawn = torch.randn(output.shape, generator=generator).to(output)
            values[number] = drawn.requires_grad_()
            return values[number]

        return hook

    def read(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        found.append(args[0][0].unflatten(-1, (model.n_heads, model.d_head)))
        raise _Read

    handles = [module.register_forward_hook(replace(number)) for number, module in enumerate(modules)]
    handles.append(model.places.output_projection(layer).register_forward_pre_hook(read))
    ids = torch.arange(_TOKENS, device=model.device)[None]
    try:
        model.hf(input_ids=ids, use_cache=False)
    except _Read:
        pass
    finally:
        for handle in handles:
            handle.remove()
    return [values[number] for number in range(len(modules))], found[0]
