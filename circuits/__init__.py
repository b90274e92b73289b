"""Searches for the components that matter: attribution, ablation sweeps, interchange screening.

Names are loaded on first use, so that `import circuits` costs nothing. Functions that share the name of their module
(`cascade`, `contributions`, `head_grid`) are imported from it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from circuits.ablation import ablation_sweep
    from circuits.cascade import Cascade
    from circuits.cases import Cases
    from circuits.contributions import Contributions
    from circuits.curve import AblationCurve, CurveOptions, ablation_curve
    from circuits.head_scores import HeadScores
    from circuits.joint import greedy
    from circuits.mask import build_mask
    from circuits.rank import RankOptions, rank_heads
    from circuits.sweeps.readouts import Readouts

__all__ = [
    "AblationCurve",
    "Cascade",
    "Cases",
    "Contributions",
    "CurveOptions",
    "HeadScores",
    "RankOptions",
    "Readouts",
    "ablation_curve",
    "ablation_sweep",
    "build_mask",
    "greedy",
    "rank_heads",
]

_HOMES = {
    "ablation": ("ablation_sweep",),
    "cascade": ("Cascade",),
    "cases": ("Cases",),
    "contributions": ("Contributions",),
    "curve": ("AblationCurve", "CurveOptions", "ablation_curve"),
    "head_scores": ("HeadScores",),
    "joint": ("greedy",),
    "mask": ("build_mask",),
    "rank": ("RankOptions", "rank_heads"),
    "sweeps.readouts": ("Readouts",),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"circuits.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
