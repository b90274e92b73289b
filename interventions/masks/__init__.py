"""Head masks: a file that says which heads a model is to do without, and what makes any model obey it.

    with HeadMask.load("mask.safetensors").attached(model): ...
    trainer = SFTTrainer(model, ..., callbacks=[HeadMaskCallback("mask.safetensors")])

Names are loaded on first use: the callback needs transformers' trainer. RECIPE.md beside this file reads a mask with
torch and safetensors alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interventions.masks.attached_mask import AttachedMask
    from interventions.masks.callback import HeadMaskCallback
    from interventions.masks.expected_effect import ExpectedEffect
    from interventions.masks.folding import fold_checkpoint
    from interventions.masks.head_mask import HeadMask
    from interventions.masks.proof import MaskReport

__all__ = ["AttachedMask", "ExpectedEffect", "HeadMask", "HeadMaskCallback", "MaskReport", "fold_checkpoint"]

_HOMES = {
    "AttachedMask": "attached_mask",
    "ExpectedEffect": "expected_effect",
    "HeadMask": "head_mask",
    "HeadMaskCallback": "callback",
    "MaskReport": "proof",
    "fold_checkpoint": "folding",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
