"""Ranking training examples by cliff, export, targeted repair, and what it bought and cost.

Names are loaded on first use, so that `import selection` costs nothing. Functions that share the name of their module
or package (`select`, `repair`) are imported from it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selection.choice import ChoiceOptions, choose
    from selection.evaluation import Evaluation, EvaluationOptions, compare, evaluate
    from selection.examples import TrainingExample, read_examples, write_examples
    from selection.pool import PoolExample, read_pool
    from selection.repair import RepairOptions, RepairReport
    from selection.select import Selection, SelectOptions

__all__ = [
    "ChoiceOptions",
    "Evaluation",
    "EvaluationOptions",
    "PoolExample",
    "RepairOptions",
    "RepairReport",
    "SelectOptions",
    "Selection",
    "TrainingExample",
    "choose",
    "compare",
    "evaluate",
    "read_examples",
    "read_pool",
    "write_examples",
]

_HOMES = {
    "choice": ("ChoiceOptions", "choose"),
    "evaluation": ("Evaluation", "EvaluationOptions", "compare", "evaluate"),
    "examples": ("TrainingExample", "read_examples", "write_examples"),
    "pool": ("PoolExample", "read_pool"),
    "repair": ("RepairOptions", "RepairReport"),
    "select": ("SelectOptions", "Selection"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"selection.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
