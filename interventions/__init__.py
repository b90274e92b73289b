"""Ways to change a forward pass: head ablation, masks, patching, steering, directions.

Names are loaded on first use, so that `import interventions` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interventions.behaviour import Behaviour
    from interventions.dose import DoseOptions, DoseResponse, Target, dose_response
    from interventions.head_ablation import MeanHeads, ResampleHeads, ScaleHeads
    from interventions.head_values import HeadValues
    from interventions.heads import Head, parse_heads
    from interventions.latents import AblateLatents, AddLatents, ClampLatents, Latents, load_latents, train_latents
    from interventions.masks import HeadMask, HeadMaskCallback, fold_checkpoint
    from interventions.random_heads import random_sets
    from interventions.scope import Scope
    from interventions.steering.along_direction import AblateDirection, AddDirection, ClampDirection
    from interventions.steering.transport import GaussianMap
    from interventions.steering.transport_activations import TransportActivations

__all__ = [
    "AblateDirection",
    "AblateLatents",
    "AddDirection",
    "AddLatents",
    "Behaviour",
    "ClampDirection",
    "ClampLatents",
    "DoseOptions",
    "DoseResponse",
    "GaussianMap",
    "Head",
    "HeadMask",
    "HeadMaskCallback",
    "HeadValues",
    "Latents",
    "MeanHeads",
    "ResampleHeads",
    "ScaleHeads",
    "Scope",
    "Target",
    "TransportActivations",
    "dose_response",
    "fold_checkpoint",
    "load_latents",
    "parse_heads",
    "random_sets",
    "train_latents",
]

_HOMES = {
    "behaviour": ("Behaviour",),
    "dose": ("DoseOptions", "DoseResponse", "Target", "dose_response"),
    "head_ablation": ("MeanHeads", "ResampleHeads", "ScaleHeads"),
    "head_values": ("HeadValues",),
    "heads": ("Head", "parse_heads"),
    "latents": ("AblateLatents", "AddLatents", "ClampLatents", "Latents", "load_latents", "train_latents"),
    "masks": ("HeadMask", "HeadMaskCallback", "fold_checkpoint"),
    "random_heads": ("random_sets",),
    "scope": ("Scope",),
    "steering.along_direction": ("AblateDirection", "AddDirection", "ClampDirection"),
    "steering.transport": ("GaussianMap",),
    "steering.transport_activations": ("TransportActivations",),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"interventions.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
