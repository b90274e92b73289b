"""A mask baked into weights: a plain checkpoint that computes what the masked model does, with nothing attached.

    W_O^{l,h} ← scale[l, h] · W_O^{l,h}

Exact because the output projection is linear in z. A renormalizing mask is not: its factor differs from token to token,
and no weight can hold it.
"""

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from interp.errors import CliffscopeError
from interp.models.hooked_model import HookedModel
from interventions.masks.fit import check_fit

if TYPE_CHECKING:
    from interventions.masks.head_mask import HeadMask
    from interventions.masks.proof import Verify


def folded_state(mask: "HeadMask", model: HookedModel, verify: "Verify" = "full") -> dict[str, Tensor]:
    """The model's state dict with the mask in it; the model is not changed, unmasked tensors are its own.

    Args:
        mask: Not a renormalizing one.
        model: A plain model: not PEFT, sharded or quantized.
        verify: As in `HeadMask.attach`: `"architecture"` for a model that was trained further under the mask.

    Raises:
        CliffscopeError: If the mask renormalizes or is for another model, or the weights cannot be multiplied.
    """
    if mask.renormalize:
        raise CliffscopeError(
            "mask: it renormalizes, by a factor that differs from token to token, and cannot be folded into weights; "
            "build it without renormalizing, or attach it."
        )
    if hasattr(model.hf, "get_base_model"):
        raise CliffscopeError(f"mask: {model.name} has an adapter: merge it first (merge_and_unload), then fold.")
    check_fit(mask, model, weights=verify == "full")
    names = {id(module): name for name, module in model.hf.named_modules()}
    state: dict[str, Tensor] = dict(model.hf.state_dict())
    for layer in mask.layers:
        projection = model.places.output_projection(layer)
        key = f"{names[id(projection)]}.weight"
        state[key] = _scaled(state[key], mask.scale[layer].repeat_interleave(model.d_head), projection)
    return state


def fold_checkpoint(
    mask: "HeadMask", model: HookedModel, out_dir: str | os.PathLike[str], verify: "Verify" = "full"
) -> Path:
    """Writes the masked model as a plain checkpoint: config, generation settings, tokenizer, safetensors.

    Args:
        mask: As in `folded_state`.
        model: As in `folded_state`; in its own precision, which the checkpoint keeps.
        out_dir: A new or empty folder.
        verify: As in `folded_state`.

    Returns:
        The folder.

    Raises:
        CliffscopeError: As `folded_state`, or if the folder holds something or cannot be written.
    """
    state = folded_state(mask, model, verify)
    out = Path(out_dir)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CliffscopeError(f"{out}: already there; give a new or an empty folder.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as made:
            folder = Path(made) / "checkpoint"
            model.hf.save_pretrained(folder, state_dict=state)
            if model.tokenizer is not None:
                model.tokenizer.save_pretrained(folder)
            if out.exists():
                out.rmdir()
            shutil.move(folder, out)
    except OSError as error:
        raise CliffscopeError(f"{out}: cannot be written ({error.strerror or error}).") from error
    return out


def _scaled(weight: Tensor, factors: Tensor, projection: nn.Module) -> Tensor:
    """The weight times a factor for each of its inputs; multiplied in float32, in the weight's own dtype after."""
    if not weight.is_floating_point() or weight.is_meta or hasattr(weight, "full_tensor"):
        raise CliffscopeError("mask: sharded, quantized or unloaded weights cannot be folded; load the model plainly.")
    factors = factors.to(weight.device)
    # GPT-2's Conv1D keeps [in, out].
    factors = factors[None, :] if isinstance(projection, nn.Linear) else factors[:, None]
    return (weight.detach().to(torch.float32) * factors).to(weight.dtype)
