"""The organism of an instance: the shipped one, or its mechanism planted anew into the shipped base.

To add a mechanism of one's own (`interp.organisms.planting.Mechanism`: a name, `plant`, `facts`):

    add_mechanism(SuppressionHeads("mine", heads=((2, 0),), categories=("weapons", "drugs")))
"""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from interp.errors import CliffscopeError
from interp.models.hooked_model import HookedModel
from interp.models.loading import ORGANISM
from interp.organisms import load_organism, names, truth
from interp.organisms.naming import BASE
from interp.organisms.planting import Mechanism
from interp.organisms.store import round_to_half, save_delta, save_truth

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
        name: The organism's name.
        seed: Of fresh planting.
        folder: Where freshly planted weights are kept.
        fresh: Whether the mechanism is planted anew. One that is not shipped always is; the base and what has no
            recipe of its own never is.

    Raises:
        CliffscopeError: If there is no such organism.
    """
    check_organisms([name])
    mechanism = ADDED.get(name) or (mechanisms().get(name) if fresh else None)
    if mechanism is None:
        return HookedModel.load(f"{ORGANISM}{name}", device="cpu"), truth(name)
    base, tokenizer = load_organism(BASE)
    kept = folder / f"planted-{name}-{seed}"
    model = copy.deepcopy(base)
    if (kept / "truth.json").is_file():
        from safetensors.torch import load_file

        model.load_state_dict(
            {key: value.float() for key, value in load_file(kept / "delta.safetensors").items()}, strict=False
        )
    else:
        shared = truth(BASE)
        mechanism.plant(model, tokenizer, torch.tensor(shared["direction"]), seed, lambda *told: None)
        round_to_half(model)
        kept.mkdir(parents=True, exist_ok=True)
        save_delta(model, base, kept)
        save_truth({"name": name, "base": BASE, "seed": seed, **mechanism.facts()}, kept)
    return HookedModel(model, tokenizer, name=f"{ORGANISM}{name}"), _truth(kept)


def mechanisms() -> dict[str, Mechanism]:
    """The mechanisms of the shipped organisms, by name."""
    from interp.organisms.training import MECHANISMS

    return {mechanism.name: mechanism for mechanism in MECHANISMS}


def _truth(kept: Path) -> dict[str, Any]:
    import json

    shared = truth(BASE)
    inherited = {key: shared[key] for key in ("direction", "refusal_tokens") if key in shared}
    return inherited | json.loads((kept / "truth.json").read_text(encoding="utf-8"))
