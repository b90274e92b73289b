"""Directions in a model's activations: fitted, chosen by measured effect, compared, kept in files.

Names are loaded on first use, so that `import interventions.directions` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interventions.directions.apart_report import Apart, ApartOptions, tell_apart
    from interventions.directions.choosing import Choice, ChoiceOptions, choose_direction
    from interventions.directions.contrasts import CONTRASTS, contrast_of, examples_of
    from interventions.directions.direction import Direction
    from interventions.directions.fitting import METHODS, best_layer, fit_direction, fit_directions
    from interventions.directions.maps import fit_map

__all__ = [
    "CONTRASTS",
    "METHODS",
    "Apart",
    "ApartOptions",
    "Choice",
    "ChoiceOptions",
    "Direction",
    "best_layer",
    "choose_direction",
    "contrast_of",
    "examples_of",
    "fit_direction",
    "fit_directions",
    "fit_map",
    "tell_apart",
]

_HOMES = {
    "apart_report": ("Apart", "ApartOptions", "tell_apart"),
    "choosing": ("Choice", "ChoiceOptions", "choose_direction"),
    "contrasts": ("CONTRASTS", "contrast_of", "examples_of"),
    "direction": ("Direction",),
    "fitting": ("METHODS", "best_layer", "fit_direction", "fit_directions"),
    "maps": ("fit_map",),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"interventions.directions.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
