"""Which organisms there are, and their ground truth; needs no heavy library."""

import json
import os
from importlib.resources import files
from pathlib import Path
from typing import Any

from interp.errors import CliffscopeError

BASE = "aligned"


def folder(weights: str | os.PathLike[str] | None = None) -> Path:
    """The folder of the shipped weights, or the given one."""
    return Path(weights) if weights is not None else Path(str(files("interp.organisms"))) / "weights"


def names(weights: str | os.PathLike[str] | None = None) -> tuple[str, ...]:
    """The organisms, the base first.

    Args:
        weights: A folder that `train` wrote; by default the shipped weights.
    """
    found = sorted(path.parent.name for path in folder(weights).glob("*/truth.json"))
    return tuple(sorted(found, key=lambda name: name != BASE))


def check_name(name: str, weights: str | os.PathLike[str] | None = None) -> None:
    """Raises `CliffscopeError`, listing the good names, if there is no organism of that name."""
    known = names(weights)
    if name not in known:
        where = "" if weights is None else f" in {folder(weights)}"
        raise CliffscopeError(f"organism:{name}: no such organism{where}; use one of: {', '.join(known)}.")


def truth(name: str, weights: str | os.PathLike[str] | None = None) -> dict[str, Any]:
    """What is known about an organism because it was planted.

    Returns:
        `name`; `base` (None for the base); `direction`, the unit vector `[d_model]` that carries "harmful" in
        the residual stream; `refusal_tokens`; `seed`; `recipe` and `figures` (measured on held-out prompts after
        rounding to bfloat16). A planted organism also has `mechanism`, `heads` (such as "3.1") and `categories`.

    Raises:
        CliffscopeError: If there is no such organism.
    """
    check_name(name, weights)
    facts: dict[str, Any] = json.loads((folder(weights) / name / "truth.json").read_text(encoding="utf-8"))
    if facts.get("base"):
        shared = truth(facts["base"], weights)
        facts = {
            key: shared[key] for key in ("direction", "marking_direction", "refusal_tokens") if key in shared
        } | facts
    return facts
