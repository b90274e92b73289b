"""Evaluation: what a model does with harmful and harmless prompts, what a change costs, and comparing evaluations.

`evaluate` makes an `Evaluation`, a JSON file with an outcome for every prompt; `compare` puts any number of them side
by side. Names are loaded on first use: only evaluating needs torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selection.evaluation.comparison import Comparison, compare
    from selection.evaluation.estimate import Estimate
    from selection.evaluation.evaluation import Evaluation, rollouts_folder
    from selection.evaluation.outcomes import MEASURES, SETS, Measure, PromptOutcome, Rate
    from selection.evaluation.run import evaluate
    from selection.evaluation.subject import EvaluationOptions

__all__ = [
    "MEASURES",
    "SETS",
    "Comparison",
    "Estimate",
    "Evaluation",
    "EvaluationOptions",
    "Measure",
    "PromptOutcome",
    "Rate",
    "compare",
    "evaluate",
    "rollouts_folder",
]

_HOMES = {
    "MEASURES": "outcomes",
    "SETS": "outcomes",
    "Comparison": "comparison",
    "Estimate": "estimate",
    "Evaluation": "evaluation",
    "EvaluationOptions": "subject",
    "Measure": "outcomes",
    "PromptOutcome": "outcomes",
    "Rate": "outcomes",
    "compare": "comparison",
    "evaluate": "run",
    "rollouts_folder": "evaluation",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
