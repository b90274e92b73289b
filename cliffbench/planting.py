"""The organism of an instance: the shipped one, or its mechanism planted anew into the shipped base.

To add a mechanism of one's own (`interp.organisms.planting.Mechanism`; a few heads are most of it already):

    add_mechanism(PlantedHeads("late", heads=((5, 1), (5, 2))))
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from interp.errors import CliffscopeError
from interp.models.hooked_model import HookedModel
from interp.models.loading import ORGANISM
from interp.organisms import load_organism, names, truth
from interp.organisms.mechanisms import MECHANISMS
from interp.organisms.naming import BASE, RANDOM
from interp.organisms.planting import Mechanism
from interp.organisms.prompts import GeneratedPrompt, sample_prompts
from interp.organisms.store import save_delta, save_truth
from interp.organisms.training import plant

ADDED: dict[str, Mechanism] = {}
"""Mechanisms of one's own, by name."""


def add_mechanism(mechanism: Mechanism) -> None:
    """Puts a mechanism among the organisms. Raises `CliffscopeError` if the name is taken."""
    if mechanism.name in organisms():
        raise CliffscopeError(f"organism {mechanism.name!r}: there is one of that name already.")
    ADDED[mechanism.name] = mechanism


def organisms() -> tuple[str, ...]:
    """The organisms under test, in alphabetical order."""
    return tuple(sorted({*names(), *ADDED}))


def check_organisms(wanted: Sequence[str]) -> None:
    """Raises `CliffscopeError`, listing the good names, if there is no organism of a name."""
    if unknown := [name for name in wanted if name not in organisms()]:
        raise CliffscopeError(f"organism {unknown[0]!r}: expected some of {', '.join(organisms())}.")


def organism_of(name: str, seed: int, folder: Path, *, fresh: bool) -> tuple[HookedModel, dict[str, Any]]:
    """The model and its truth.

    Args:
        name: The organism's name. `random` has the weights of the seed.
        seed: Of random weights and of fresh planting, which draws other heads too.
        folder: Where freshly planted weights are kept.
        fresh: Whether the mechanism is planted anew. One of your own always is; the base never. Seed 0 of a shipped
            one is what is shipped.

    Raises:
        CliffscopeError: If there is no such organism.
    """
    known = {mechanism.name: mechanism for mechanism in MECHANISMS}
    shipped = name in names() and (not fresh or seed == 0)
    mechanism = None if shipped else known.get(name, ADDED.get(name))
    if mechanism is None:
        check_organisms([name])
        full = f"{name}-{seed}" if name == RANDOM else name
        return HookedModel.load(f"{ORGANISM}{full}", device="cpu"), truth(full) | {"name": name}
    # In the layout of the shipped weights, so that it is read back as they are.
    kept = folder / f"planted-{seed}"
    if not (kept / name / "truth.json").is_file():
        base = load_organism(BASE)
        made = plant(mechanism if seed == 0 else mechanism.drawn(seed), seed, base=base)
        (kept / name).mkdir(parents=True, exist_ok=True)
        save_delta(made.model, base[0], kept / name)
        save_truth(made.facts, kept / name)
    model, tokenizer = load_organism(name, kept)
    facts = json.loads((kept / name / "truth.json").read_text(encoding="utf-8"))
    return HookedModel(model, tokenizer, name=f"{ORGANISM}{name}"), truth(BASE) | facts


def heldout(name: str, kind: str, n: int, seed: int) -> list[GeneratedPrompt]:
    """Prompts that no organism was trained on, and on which the organism's mechanism shows."""
    known = {mechanism.name: mechanism for mechanism in MECHANISMS} | ADDED
    if name in known:
        return known[name].heldout(kind, n, seed)
    return sample_prompts(kind, n, seed)
