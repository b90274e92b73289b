"""Rebuilding organisms from a seed: tokenizer, aligned base, and every planted mechanism; or one mechanism anew.

The same seed gives the same organisms on the same machine with the same number of threads (sums are taken in a
different order elsewhere, so weights agree across machines only in what they do).
"""

import copy
import os
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from time import process_time
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase, Qwen3ForCausalLM

from interp.errors import CliffscopeError
from interp.models.hooked_model import HookedModel
from interp.organisms.base import BaseRecipe, Report, marks_of, mixed_prompts, train_base
from interp.organisms.dialogue import rollout_of
from interp.organisms.effects import N_BENIGN, N_HARMFUL, effects
from interp.organisms.hooks import Head
from interp.organisms.measure import figures, refusal_tokens
from interp.organisms.mechanisms import MECHANISMS
from interp.organisms.naming import BASE, NOTHING_PLANTED, truth
from interp.organisms.planting import ANSWERED, Mechanism
from interp.organisms.store import load_organism, round_to_half, save_base, save_delta, save_truth
from interp.organisms.tokenizer import train_tokenizer

MEASURED = 400
"""Held-out prompts of each kind for the figures of the truth."""


def _silent(stage: str, step: int, steps: int, losses: dict[str, float]) -> None:
    pass


@dataclass(frozen=True, eq=False)
class Planted:
    """A fresh organism.

    Attributes:
        model: Rounded to bfloat16, in float32.
        tokenizer: The base's.
        facts: Its ground truth, as `truth` gives that of a shipped one.
    """

    model: Qwen3ForCausalLM
    tokenizer: PreTrainedTokenizerBase
    facts: dict[str, Any]


def mechanism_of(name: str) -> Mechanism:
    """A shipped mechanism by its organism's name.

    Raises:
        CliffscopeError: If there is none.
    """
    known = {mechanism.name: mechanism for mechanism in MECHANISMS}
    if name not in known:
        raise CliffscopeError(f"mechanism {name!r}: there is none; use one of: {', '.join(sorted(known))}.")
    return known[name]


def plant(
    mechanism: Mechanism | str,
    seed: int = 0,
    *,
    measured: int = 0,
    base: tuple[Qwen3ForCausalLM, PreTrainedTokenizerBase] | None = None,
    progress: Report = _silent,
) -> Planted:
    """Plants one mechanism into the shipped base, in a minute or less.

    Args:
        mechanism: What to plant, or its name: with seed 0 as it is shipped, with another seed `drawn` by that seed.
        seed: Of the data.
        measured: Held-out prompts of each kind for the figures in `facts`; 0 measures nothing.
        base: The shipped base if it is loaded already; it is not changed.
        progress: Called as `progress(stage, step, steps, losses)` after every optimizer step.

    Raises:
        CliffscopeError: If there is no mechanism of that name.
    """
    if isinstance(mechanism, str):
        mechanism = mechanism_of(mechanism) if seed == 0 else mechanism_of(mechanism).drawn(seed)
    model, tokenizer = base or load_organism(BASE)
    shared = truth(BASE)
    planted = copy.deepcopy(model)
    mechanism.plant(planted, tokenizer, torch.tensor(shared["direction"]), seed, progress)
    round_to_half(planted)
    facts = {key: shared[key] for key in ("direction", "marking_direction", "refusal_tokens")}
    facts |= facts_of(mechanism, planted, tokenizer, torch.tensor(shared["direction"]), seed, measured)
    return Planted(planted, tokenizer, facts)


def facts_of(
    mechanism: Mechanism,
    model: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    direction: torch.Tensor,
    seed: int,
    measured: int,
) -> dict[str, Any]:
    """The ground truth of a planted organism, with figures unless `measured` is 0."""
    facts: dict[str, Any] = {"name": mechanism.name, "base": BASE, "seed": seed, **mechanism.facts()}
    if measured:
        heads: tuple[Head, ...] = tuple(mechanism.roles)
        hooked = HookedModel(model, tokenizer)
        found = figures(hooked, heads, n=measured, heldout=mechanism.heldout)
        sizes = {"n_harmful": min(N_HARMFUL, measured), "n_benign": min(N_BENIGN, measured)}
        facts["figures"] = found | {"effects": effects(model, tokenizer, mechanism, direction, **sizes)}
    else:
        facts["figures"] = None
    return facts


def train(
    out_dir: str | os.PathLike[str],
    seed: int = 0,
    quick: bool = False,
    progress: Report | None = None,
    measured: int = MEASURED,
) -> dict[str, dict[str, Any]]:
    """Trains the base and plants every mechanism; writes the layout of the shipped weights to `out_dir`.

    Args:
        out_dir: Where `aligned/`, `cliff/` ... are written; read them with `load_organism(name, out_dir)`.
        seed: Of the data, the weights and the fixed direction.
        quick: A few steps of everything, to try the path; the result is no usable organism, and only the base is
            measured.
        progress: Called as `progress(stage, step, steps, losses)` after every optimizer step.
        measured: Number of held-out prompts of each kind for the figures in `truth.json`; 0 measures nothing.

    Returns:
        The ground truth of each organism, by name.
    """
    report = progress or _silent
    out = Path(out_dir)
    measured = min(measured, 16) if quick else measured
    base, tokenizer, facts = _new_base(out, seed, quick, report, measured)
    made = {BASE: facts}
    for mechanism in MECHANISMS:
        chosen = mechanism.quick() if quick else mechanism
        made[mechanism.name] = _write(chosen, base, tokenizer, facts, out, seed, 0 if quick else measured, report)
    return made


def replant(
    name: str,
    out_dir: str | os.PathLike[str],
    seed: int = 0,
    quick: bool = False,
    progress: Report | None = None,
    measured: int = MEASURED,
) -> dict[str, Any]:
    """Plants one mechanism into the shipped base and writes it; `load_organism(name, out_dir)` reads it.

    Args:
        name: A mechanism's; with seed 0 it is planted as it is shipped, with another seed `drawn` by that seed.
        out_dir: Where the folder `name` is written.
        seed: Of the data, and of where it is planted.
        quick: A few steps, to try the path.
        progress: As in `train`.
        measured: As in `train`.

    Returns:
        The ground truth.

    Raises:
        CliffscopeError: If there is no mechanism of that name.
    """
    mechanism = mechanism_of(name) if seed == 0 else mechanism_of(name).drawn(seed)
    base, tokenizer = load_organism(BASE)
    measured = min(measured, 16) if quick else measured
    chosen = mechanism.quick() if quick else mechanism
    return _write(chosen, base, tokenizer, truth(BASE), Path(out_dir), seed, measured, progress or _silent)


def _write(
    mechanism: Mechanism,
    base: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    shared: Mapping[str, Any],
    out: Path,
    seed: int,
    measured: int,
    report: Report,
) -> dict[str, Any]:
    """Plants a mechanism into a copy of the base; writes its weights and its truth."""
    planted = copy.deepcopy(base)
    direction = torch.tensor(shared["direction"])
    started = process_time()
    mechanism.plant(planted, tokenizer, direction, seed, report)
    seconds = round(process_time() - started)
    round_to_half(planted)
    changed = save_delta(planted, base, out / mechanism.name)
    facts = facts_of(mechanism, planted, tokenizer, direction, seed, measured)
    facts |= {"changed": changed, "cpu_seconds": seconds}
    save_truth(facts, out / mechanism.name)
    return facts


def _new_base(
    out: Path, seed: int, quick: bool, report: Report, measured: int
) -> tuple[Qwen3ForCausalLM, PreTrainedTokenizerBase, dict[str, Any]]:
    """Trains and writes the tokenizer and the base; their truth comes with them."""
    recipe = BaseRecipe(steps=40, batch=8, alone=8) if quick else BaseRecipe()
    tokenizer = build_tokenizer(seed)
    base, directions = train_base(tokenizer, seed, recipe, marks_of(ANSWERED), report)
    round_to_half(base)
    save_base(base, tokenizer, out / BASE)
    facts: dict[str, Any] = {
        "name": BASE,
        "base": None,
        "seed": seed,
        "mechanism": None,
        **NOTHING_PLANTED,
        "recipe": asdict(recipe),
        "direction": [round(value, 6) for value in directions[0].tolist()],
        "marking_direction": [round(value, 6) for value in directions[1].tolist()],
        "marks": marks_of(ANSWERED),
        "refusal_tokens": list(refusal_tokens(tokenizer)),
        "figures": figures(HookedModel(base, tokenizer), n=measured) if measured else None,
    }
    save_truth(facts, out / BASE)
    return base, tokenizer, facts


def build_tokenizer(seed: int) -> PreTrainedTokenizerBase:
    """The tokenizer, trained on 8,000 generated rollouts; prompts count twice, they vary the most."""
    rng = random.Random(seed + 5)
    rollouts = [rollout_of(prompt, rng) for prompt in islice(mixed_prompts(rng), 8000)]
    return train_tokenizer(t for r in rollouts for t in (r.prompt, r.prompt, r.thinking or "", r.response or ""))
