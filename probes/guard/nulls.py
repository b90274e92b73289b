"""A guard where there is nothing to find: its AUROC with shuffled labels, and on random weights (`probes.nulls`)."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from interp.errors import CliffscopeError
from interp.rollouts import Rollout
from interp.rollouts.prompts import Prompt
from probes.category_search import warning
from probes.guard.fitting import GuardFit, GuardOptions, fit_guard
from probes.nulls import AUROC, AUROC_BY_CATEGORY, Analysis, World

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel


def world_of(model: "HookedModel", prompts: Sequence[Prompt], batch_tokens: int) -> World:
    """Labelled prompts as a world: as rollouts, whose outcomes are the labels."""
    known = [prompt for prompt in prompts if prompt.harmful is not None]
    rollouts = [
        Rollout(f"{number}", prompt.text, None, "", prompt.harmful, prompt.category, prompt.harmful)
        for number, prompt in enumerate(known)
    ]
    return World(model, tuple(rollouts), None, batch_tokens)


def auroc_of_guard(options: GuardOptions, layers: Sequence[int], system: str | None) -> Analysis:
    """The figures of a guard that is fitted in a world; NaN where it has too few prompts of a class to be."""

    def analysis(world: World) -> dict[str, float]:
        prompts = [Prompt(rollout.id, rollout.prompt, rollout.harmful, rollout.category) for rollout in world.rollouts]
        try:
            return figures_of(
                fit_guard(world.model, prompts, options, layers=layers, system=system, batch_tokens=world.batch_tokens)
            )
        except CliffscopeError:
            return {AUROC: math.nan, AUROC_BY_CATEGORY: math.nan}

    return analysis


def figures_of(fitted: GuardFit) -> dict[str, float]:
    """The AUROC on prompts kept apart, and on held-out categories; the latter is NaN where prompts were held out."""
    by_category = fitted.held_out_by == "category"
    return {AUROC: fitted.calibration.auroc, AUROC_BY_CATEGORY: fitted.held_out.auroc if by_category else math.nan}


def doubt_of(fitted: GuardFit) -> str | None:
    """What speaks against a guard that is good on prompts like those fitted and not on categories held out."""
    figures = figures_of(fitted)
    facts = {"auroc": figures[AUROC], "auroc_held_out_category": figures[AUROC_BY_CATEGORY]}
    return warning(facts, "guard")
