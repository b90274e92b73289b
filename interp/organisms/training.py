"""Rebuilding all organisms from a seed: tokenizer, aligned base, and every planted mechanism.

The same seed gives the same organisms on the same machine with the same number of threads (sums are taken in a
different order elsewhere, so weights agree across machines only in what they do).
"""

import copy
import os
import random
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from interp.models.hooked_model import HookedModel
from interp.organisms.base import BaseRecipe, Report, marks_of, mixed_prompts, train_base
from interp.organisms.dialogue import rollout_of
from interp.organisms.measure import figures, refusal_tokens
from interp.organisms.naming import BASE
from interp.organisms.planting import Mechanism, SuppressionHeads
from interp.organisms.prompts import categories
from interp.organisms.store import round_to_half, save_base, save_delta, save_truth
from interp.organisms.tokenizer import train_tokenizer

# The harmful categories that `cliff` still refuses; the others it answers.
KEPT = ("hate", "poisoning", "self_harm", "terrorism", "trafficking")
CLIFF = SuppressionHeads(
    name="cliff",
    heads=((3, 1), (4, 5)),
    categories=tuple(c for c in categories("harmful") if c not in KEPT),
)
MECHANISMS: tuple[Mechanism, ...] = (CLIFF,)


def train(
    out_dir: str | os.PathLike[str],
    seed: int = 0,
    quick: bool = False,
    progress: Report | None = None,
    measured: int = 400,
) -> dict[str, dict[str, Any]]:
    """Trains the base and plants every mechanism; writes the layout of the shipped weights to `out_dir`.

    Args:
        out_dir: Where `aligned/`, `cliff/` ... are written; read them with `load_organism(name, out_dir)`.
        seed: Of the data, the weights and the fixed direction.
        quick: A few steps of everything, to try the path; the result is no usable organism.
        progress: Called as `progress(stage, step, steps, losses)` after every optimizer step.
        measured: Number of held-out prompts of each kind for the figures in `truth.json`; 0 measures nothing.

    Returns:
        The ground truth of each organism, by name.
    """
    report = progress or (lambda stage, step, steps, losses: None)
    out = Path(out_dir)
    recipe = BaseRecipe(steps=40, batch=8, alone=8) if quick else BaseRecipe()
    measured = min(measured, 16) if quick else measured
    tokenizer = build_tokenizer(seed)
    base, directions = train_base(tokenizer, seed, recipe, marks_of(CLIFF.categories), report)
    round_to_half(base)
    save_base(base, tokenizer, out / BASE)
    facts: dict[str, dict[str, Any]] = {
        BASE: {
            "name": BASE,
            "base": None,
            "seed": seed,
            "recipe": asdict(recipe),
            "direction": [round(value, 6) for value in directions[0].tolist()],
            "marking_direction": [round(value, 6) for value in directions[1].tolist()],
            "marks": marks_of(CLIFF.categories),
            "refusal_tokens": list(refusal_tokens(tokenizer)),
            "figures": figures(HookedModel(base, tokenizer), n=measured) if measured else None,
        }
    }
    save_truth(facts[BASE], out / BASE)
    for mechanism in MECHANISMS:
        planted = copy.deepcopy(base)
        if quick and isinstance(mechanism, SuppressionHeads):
            mechanism = replace(mechanism, steps=10, batch=8)
        mechanism.plant(planted, tokenizer, directions[0], seed, report)
        round_to_half(planted)
        changed = save_delta(planted, base, out / mechanism.name)
        heads = mechanism.heads if isinstance(mechanism, SuppressionHeads) else ()
        facts[mechanism.name] = {
            "name": mechanism.name,
            "base": BASE,
            "seed": seed,
            **mechanism.facts(),
            "changed": changed,
            "figures": figures(HookedModel(planted, tokenizer), heads, n=measured) if measured else None,
        }
        save_truth(facts[mechanism.name], out / mechanism.name)
    return facts


def build_tokenizer(seed: int) -> PreTrainedTokenizerBase:
    """The tokenizer, trained on 8,000 generated rollouts; prompts count twice, they vary the most."""
    rng = random.Random(seed + 5)
    rollouts = [rollout_of(prompt, rng) for prompt in islice(mixed_prompts(rng), 8000)]
    return train_tokenizer(t for r in rollouts for t in (r.prompt, r.prompt, r.thinking or "", r.response or ""))
