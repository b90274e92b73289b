"""Directions in a model's activations: fitted, chosen by measured effect, compared, kept in files.

Names are loaded on first use, so that `import interventions.directions` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interventions.directions.direction import Direction

__all__ = [
    "Direction",
]

_HOMES = {
    "direction": ("Direction",),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"interventions.directions.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
