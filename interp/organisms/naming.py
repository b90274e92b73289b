"""Which organisms there are, and their ground truth; needs no heavy library."""

import json
import os
from importlib.resources import files
from pathlib import Path
from typing import Any

from interp.errors import CliffscopeError

BASE = "aligned"
RANDOM = "random"
"""The control without training: `random`, `random-1`, … have the base's architecture and the weights of their seed."""

NOTHING_PLANTED: dict[str, Any] = {
    "cliff": False,
    "sparse": False,
    "heads": [],
    "roles": {},
    "edges": [],
    "categories": [],
}
"""What is true of an organism without a mechanism."""


def folder(weights: str | os.PathLike[str] | None = None) -> Path:
    """The folder of the shipped weights, or the given one."""
    return Path(weights) if weights is not None else Path(str(files("interp.organisms"))) / "weights"


def base_folder(weights: str | os.PathLike[str] | None = None) -> Path:
    """Where the base of the organisms in `weights` is: there, or if it is not, among the shipped weights."""
    own = folder(weights) / BASE
    return own if own.is_dir() else folder() / BASE


def names(weights: str | os.PathLike[str] | None = None) -> tuple[str, ...]:
    """The organisms, the base first; a folder without a base stands on the shipped one, `random` needs no file.

    Args:
        weights: A folder that `train` wrote; by default the shipped weights.
    """
    found = {path.parent.name for path in folder(weights).glob("*/truth.json")} | {BASE, RANDOM}
    return tuple(sorted(found, key=lambda name: (name != BASE, name)))


def check_name(name: str, weights: str | os.PathLike[str] | None = None) -> None:
    """Raises `CliffscopeError`, listing the good names, if there is no organism of that name."""
    known = names(weights)
    if name not in known and random_seed(name) is None:
        where = "" if weights is None else f" in {folder(weights)}"
        raise CliffscopeError(
            f"organism:{name}: no such organism{where}; use one of: {', '.join(known)}, {RANDOM}-1, {RANDOM}-2, …"
        )


def random_seed(name: str) -> int | None:
    """The seed of `random` (0) or `random-7` (7); `None` for other names."""
    stem, dash, seed = name.partition("-")
    if stem != RANDOM or (dash and not (seed.isascii() and seed.isdigit())) or len(seed) > 9:
        return None
    return int(seed or 0)


def truth(name: str, weights: str | os.PathLike[str] | None = None) -> dict[str, Any]:
    """What is known about an organism because it was planted.

    Returns:
        `name`; `base` (`None` for the base and for random weights); `direction`, the unit vector `[d_model]` that
        carries "harmful" in the residual stream (`None` for random weights); `refusal_tokens`; `seed`; `recipe` and
        `figures` (measured on held-out prompts after rounding to bfloat16; see `interp.organisms.effects`); and what a
        method must find:

        - `cliff`: whether there is one; `None` if that is not known beforehand;
        - `sparse`: whether a few heads restore refusal; `None` if that is not known;
        - `heads`: what a search must find, such as "3.1"; `roles`: every planted head with what it does, among them
          those that must not be claimed (`decoy`, `shift`); `edges`: pairs of heads, from and to;
        - `mechanism` and `categories`: what was planted, and which harmful categories are answered by it.

    Raises:
        CliffscopeError: If there is no such organism.
    """
    check_name(name, weights)
    seed = random_seed(name)
    file = (base_folder(weights) if name == BASE else folder(weights) / name) / "truth.json"
    if seed is not None and not file.is_file():
        return _truth_of_random(name, seed, weights)
    facts: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if facts.get("base"):
        shared = truth(facts["base"], weights)
        facts = {
            key: shared[key] for key in ("direction", "marking_direction", "refusal_tokens") if key in shared
        } | facts
    return facts


def _truth_of_random(name: str, seed: int, weights: str | os.PathLike[str] | None) -> dict[str, Any]:
    base = json.loads((base_folder(weights) / "truth.json").read_text(encoding="utf-8"))
    facts = {"name": name, "base": None, "seed": seed, "mechanism": None, **NOTHING_PLANTED, "direction": None}
    return facts | {"refusal_tokens": base["refusal_tokens"], "recipe": {"weights": "random"}, "figures": None}
