"""Whether a mask is for a model: architecture, sizes, and a hash of the output projections that it acts on."""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from interp.errors import CliffscopeError
from interp.models.hooked_model import HookedModel
from interp.models.places import without_adapter

if TYPE_CHECKING:
    from interventions.masks.head_mask import HeadMask

PROJECTIONS = "output_projections"
"""The key of the hash in a fingerprint."""

_IRRELEVANT = {"d_vocab"}
"""Differs where a training job has added tokens, and matters to no head."""

_HASHED_DTYPES = (torch.float32, torch.bfloat16)


def fingerprint_of(model: HookedModel, layers: Sequence[int]) -> dict[str, str]:
    """What a mask on these layers notes of a model: `HookedModel.fingerprint` and the hash, where it can be had."""
    digest = projections_hash(model, layers)
    return {**model.fingerprint, **({} if digest is None else {PROJECTIONS: digest})}


def projections_hash(model: HookedModel, layers: Sequence[int]) -> str | None:
    """`sha256:…` over the layers' output projections `[head, d_head, d_model]`, rounded to bfloat16.

    Rounded, so that a checkpoint loaded in float32 and in bfloat16 has the same hash.

    Returns:
        `None` where the values are not at hand: sharded, quantized or not loaded. Also in float16, from which other
        values may be rounded than from the float32 that they were themselves rounded from.
    """
    digest = hashlib.sha256()
    for layer in layers:
        weight = _readable_weight(model, layer)
        if weight is None:
            return None
        digest.update(weight.detach().to(torch.bfloat16).contiguous().view(torch.uint8).cpu().numpy().tobytes())
    return f"sha256:{digest.hexdigest()}"


def check_fit(mask: "HeadMask", model: HookedModel, *, weights: bool = False) -> None:
    """Refuses a model that a mask is not for.

    Args:
        mask: Without a fingerprint it fits any model of its shape.
        model: The model.
        weights: Compare the output projections too, where they can be read.

    Raises:
        CliffscopeError: Naming what differs.
    """
    refusal = f"mask: made for {mask.model or 'another model'}, not for {model.name}"
    differences = _differences(mask, model)
    if differences:
        raise CliffscopeError(f"{refusal}: {'; '.join(differences)}; build a mask for this model.")
    if not weights or PROJECTIONS not in mask.fingerprint:
        return
    if projections_hash(model, mask.layers) not in (None, mask.fingerprint[PROJECTIONS]):
        raise CliffscopeError(
            f"{refusal}: architecture and sizes agree, the output projections of layer "
            f"{', '.join(map(str, mask.layers))} differ; build a mask for this model, or if this is that model trained "
            'further, say verify="architecture" (--verify architecture).'
        )


def _differences(mask: "HeadMask", model: HookedModel) -> list[str]:
    here = model.fingerprint
    found = [
        f"{key} {value} there, {here[key]} here"
        for key, value in sorted(mask.fingerprint.items())
        if key in here and key not in _IRRELEVANT and value != here[key]
    ]
    shape = (model.n_layers, model.n_heads)
    if not found and tuple(mask.scale.shape) != shape:
        found = [f"its scale is {shape_in_words(mask.scale, model.n_kv_heads)}, the model's heads are {list(shape)}"]
    return found


def shape_in_words(scale: Tensor, n_kv_heads: int | str | None) -> str:
    """The shape of a scale that has a wrong one, and a guess at the mistake."""
    by_group = scale.ndim == 2 and str(scale.shape[1]) == str(n_kv_heads)
    return f"{list(scale.shape)}" + (" (a mask over key-value heads? it must be over query heads)" if by_group else "")


def _readable_weight(model: HookedModel, layer: int) -> Tensor | None:
    """The output projection `[head, d_head, d_model]`, or `None` if its values are not whole and plain here."""
    weight = getattr(without_adapter(model.places.output_projection(layer)), "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim != 2 or weight.dtype not in _HASHED_DTYPES:
        return None
    whole = weight.numel() == model.n_heads * model.d_head * model.d_model
    distributed = hasattr(weight, "full_tensor")  # to ask for it would need every process
    return model.places.output_weight(layer) if whole and not distributed and not weight.is_meta else None
