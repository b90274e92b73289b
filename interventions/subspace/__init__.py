"""Subspaces as causal claims: interchange between rollouts, dormant paths, distributed alignment search.

Names are loaded on first use, so that `import interventions.subspace` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interventions.subspace.alignment import Alignment, AlignmentOptions, align_subspace
    from interventions.subspace.check import SubspaceCheck, check_subspace
    from interventions.subspace.interchange import InterchangeSubspace, interchanged
    from interventions.subspace.read_space import ReadSpace

__all__ = [
    "Alignment",
    "AlignmentOptions",
    "InterchangeSubspace",
    "ReadSpace",
    "SubspaceCheck",
    "align_subspace",
    "check_subspace",
    "interchanged",
]

_HOMES = {
    "alignment": ("Alignment", "AlignmentOptions", "align_subspace"),
    "check": ("SubspaceCheck", "check_subspace"),
    "interchange": ("InterchangeSubspace", "interchanged"),
    "read_space": ("ReadSpace",),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"interventions.subspace.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
