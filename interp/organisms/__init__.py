"""Organisms: tiny reasoning models whose mechanism is known because it was planted.

They calibrate the tools: a method that claims to find suppression heads must find the planted ones. They do not
show that real models work this way. `aligned` refuses what its thinking calls harmful; the planted organisms are the
same model with a few heads trained, so that they answer most of it while the thinking still ends with "I should
refuse", each by another mechanism (`interp.organisms.mechanisms`); `confound` and `random` are controls.

    model, tokenizer = load_organism("cliff")
    truth("cliff")["heads"]                       # what a search must find
    prompts = sample_prompts("harmful", 200, seed=0)

Prompts only name a harm, and no organism can explain how to do one: what it answers has no content.
"""

from typing import TYPE_CHECKING, Any

from interp.organisms.naming import names, truth
from interp.organisms.prompts import GeneratedPrompt, categories, sample_prompts

if TYPE_CHECKING:
    from interp.organisms.dialogue import rollout_of
    from interp.organisms.measure import figures
    from interp.organisms.store import export, load_organism
    from interp.organisms.training import mechanism_of, plant, replant, train

__all__ = [
    "GeneratedPrompt",
    "categories",
    "export",
    "figures",
    "load_organism",
    "mechanism_of",
    "names",
    "plant",
    "replant",
    "rollout_of",
    "sample_prompts",
    "train",
    "truth",
]

# What needs torch is imported when it is first asked for.
_LAZY = {
    "export": "store",
    "figures": "measure",
    "load_organism": "store",
    "mechanism_of": "training",
    "plant": "training",
    "replant": "training",
    "rollout_of": "dialogue",
    "train": "training",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
