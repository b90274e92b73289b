"""Targeted repair: supervised fine-tuning of a model on few chosen examples, by TRL's `SFTTrainer`.

    repair("organism:cliff", read_examples("selected.jsonl", chat), "repaired", RepairOptions(trainable="lora"))

Names are loaded on first use: training needs the extra `cliffscope[repair]` (TRL, PEFT, accelerate).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selection.repair.dataset import TrainingTokens, tokenize
    from selection.repair.mix import benign_examples, mix
    from selection.repair.options import RepairOptions
    from selection.repair.preflight import Preflight
    from selection.repair.report import RepairReport
    from selection.repair.run import repair

__all__ = [
    "Preflight",
    "RepairOptions",
    "RepairReport",
    "TrainingTokens",
    "benign_examples",
    "mix",
    "repair",
    "tokenize",
]

_HOMES = {
    "Preflight": "preflight",
    "RepairOptions": "options",
    "RepairReport": "report",
    "TrainingTokens": "dataset",
    "benign_examples": "mix",
    "mix": "mix",
    "repair": "run",
    "tokenize": "dataset",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
