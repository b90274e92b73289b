"""Latents of sparse autoencoders: loaded or trained at a site, ranked by what they separate, and changed.

sae-lens does the encoding, the decoding and the training; it comes with the extra `cliffscope[sae]`. Names are loaded
on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interventions.latents.acting import intervene_latents
    from interventions.latents.changes import AblateLatents, AddLatents, ClampLatents
    from interventions.latents.latents import Latents
    from interventions.latents.loading import load_latents
    from interventions.latents.options import TrainingOptions
    from interventions.latents.ranking import rank_latents
    from interventions.latents.scores import LatentScores
    from interventions.latents.training import train_latents
    from interventions.latents.untrained import untrained_like

__all__ = [
    "AblateLatents",
    "AddLatents",
    "ClampLatents",
    "LatentScores",
    "Latents",
    "TrainingOptions",
    "intervene_latents",
    "load_latents",
    "rank_latents",
    "train_latents",
    "untrained_like",
]

_HOMES = {
    "acting": ("intervene_latents",),
    "changes": ("AblateLatents", "AddLatents", "ClampLatents"),
    "latents": ("Latents",),
    "loading": ("load_latents",),
    "options": ("TrainingOptions",),
    "ranking": ("rank_latents",),
    "scores": ("LatentScores",),
    "training": ("train_latents",),
    "untrained": ("untrained_like",),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"interventions.latents.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
