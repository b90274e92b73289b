"""Dose-response: what steering along a vector does at each layer and dose, with random directions as the control."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interventions.dose.figure import dose_figures, dose_page
    from interventions.dose.options import DoseOptions, n_cells
    from interventions.dose.response import DoseResponse
    from interventions.dose.smallest import SmallestDose, Target
    from interventions.dose.sweep import dose_response

__all__ = [
    "DoseOptions",
    "DoseResponse",
    "SmallestDose",
    "Target",
    "dose_figures",
    "dose_page",
    "dose_response",
    "n_cells",
]

_HOMES = {
    "figure": ("dose_figures", "dose_page"),
    "options": ("DoseOptions", "n_cells"),
    "response": ("DoseResponse",),
    "smallest": ("SmallestDose", "Target"),
    "sweep": ("dose_response",),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"interventions.dose.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
