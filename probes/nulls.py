"""Null mode: the same analysis in a world in which there is nothing to find.

A world is what an analysis is given: a model, a probe, rollouts. A null makes another world of it, for a seed:

- *shuffled*: the outcomes are dealt out anew among the prompts, and the probe is fitted anew;
- *random-weights*: a model of the same architecture, drawn from its own initialization, reads the same texts, and the
  probe is fitted anew (arXiv 2512.18792: labels that are shuffled look safe where random weights do not);
- *random-direction*: the probe's weight is a random direction of equal length. It is turned so that refused rollouts
  lie above benign ones, and its bias puts the middle between both at even odds: what a direction without meaning can
  reach when it is given every advantage but the direction;
- *benign*: half of the benign rollouts, by prompt, take the place of the complied ones, which are left out.

Where a probe is fitted anew, it is with the whole search, choice of the layer included. A departure: the runs of
*benign* draw from the same rollouts and depend on each other, so that their p̂ says only how often some half shows as
much.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from interp.errors import CliffscopeError
from interp.models.capture import BATCH_TOKENS
from interp.models.reinitialized import reinitialized
from interp.models.sites import FINAL_NORM
from interp.null_runs import NULLS, NullRuns
from interp.rollouts import Rollout
from interp.statistics import auroc
from interp.transcripts.positions import EDGE
from probes.examples import Examples
from probes.linear import LinearProbe, Method
from probes.model_sweep import fit_probe, make_plan, sweep_model
from probes.splits import prompt_keys
from probes.sweep import ProbeSweep, SweepOptions
from probes.trajectory import check_probe

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel

N_RUNS = 19
"""Runs of a null; 19 make 1/20 the smallest p̂."""

AUROC = "held-out AUROC"
AUROC_BY_CATEGORY = "AUROC on held-out categories"
BEST = "best AUROC over layers and positions"
"""The figures of a probe, and of a sweep, that are set beside a null's."""


@dataclass(frozen=True)
class World:
    """What an analysis is given.

    Attributes:
        model: The model.
        rollouts: Judged rollouts.
        probe: A probe of the model, where the analysis uses one.
        batch_tokens: Token budget of a batch.
    """

    model: "HookedModel"
    rollouts: tuple[Rollout, ...]
    probe: LinearProbe | None = None
    batch_tokens: int = BATCH_TOKENS


Analysis = Callable[[World], Mapping[str, float]]
"""Gives one figure or several, by their names in words; larger is more of a finding, and 0 may stand for none."""


def run_null(
    null: str,
    world: World,
    analysis: Analysis,
    observed: Mapping[str, float] | None = None,
    *,
    runs: int = N_RUNS,
    seed: int = 0,
    advance: Callable[[int], None] = lambda amount: None,
) -> tuple[NullRuns, ...]:
    """Puts an analysis through the worlds of a null, one at a time, and sets what it gives beside the observed.

    Args:
        null: One of `NULLS`.
        world: What the analysis was given.
        analysis: The analysis.
        observed: What it gave; it is run on `world` if `None`. A figure that is NaN is left out.
        runs: How many worlds.
        seed: Of the first world; each later one has the next.
        advance: Called with 1 after each run.

    Returns:
        One for each figure, in the order of `observed`. A world in which a figure cannot be had, for it has one class
        only, is no run of it; a figure without any run is left out.

    Raises:
        CliffscopeError: If there is no such null, it cannot be made of this world, or the analysis fails in it.
    """
    if runs < 1:
        raise CliffscopeError(f"null {null}: expected at least one run, found {runs}.")
    observed = dict(analysis(world) if observed is None else observed)
    observed = {name: value for name, value in observed.items() if not math.isnan(value)}
    values: dict[str, list[float]] = {name: [] for name in observed}
    for run in range(runs):
        found = analysis(make_null(null, world, seed + run))
        for name in observed:
            if not math.isnan(value := float(found[name])):
                values[name].append(value)
        advance(1)
    return tuple(
        NullRuns(null, name, float(observed[name]), tuple(mine), seed) for name, mine in values.items() if mine
    )


def make_null(null: str, world: World, seed: int) -> World:
    """The world of a null.

    Raises:
        CliffscopeError: If there is no such null, or it cannot be made of this world.
    """
    if null not in _MAKERS:
        raise CliffscopeError(f"null {null!r}: expected one of {', '.join(NULLS)}.")
    try:
        return _MAKERS[null](world, seed)
    except CliffscopeError as error:
        raise CliffscopeError(f"null {null}: {error}") from error


def _shuffled(world: World, seed: int) -> World:
    return _refitted(replace(world, rollouts=shuffled_outcomes(world.rollouts, seed)), seed)


def _random_weights(world: World, seed: int) -> World:
    return _refitted(replace(world, model=reinitialized(world.model, seed)), seed)


def _benign(world: World, seed: int) -> World:
    return replace(world, rollouts=benign_as_complied(world.rollouts, seed))


def _random_direction(world: World, seed: int) -> World:
    if world.probe is None:
        raise CliffscopeError("there is no probe whose direction could be replaced.")
    return replace(world, probe=random_probe(world, world.probe, seed))


_MAKERS: dict[str, Callable[[World, int], World]] = {
    "shuffled": _shuffled,
    "random-weights": _random_weights,
    "random-direction": _random_direction,
    "benign": _benign,
}


def auroc_of(
    position: str, layer: int | Literal["auto", "norm"], method: Method, options: SweepOptions, by_category: bool
) -> Analysis:
    """The held-out AUROC of a probe that is fitted in a world, or of the world's own probe if it has one.

    Args:
        position: Where it is read.
        layer: See `probes.model_sweep.fit_probe`.
        method: See there.
        options: See there.
        by_category: Whether to give the AUROC on held-out categories too.
    """

    def analysis(world: World) -> dict[str, float]:
        examples = Examples.of(world.model, world.rollouts, [position])
        if world.probe is not None:
            return _judged(world, world.probe, examples, options, by_category)
        small = replace(options, n_shuffles=0, category_folds=options.category_folds if by_category else 0)
        probe, _ = fit_probe(
            world.model, examples, layer=layer, method=method, options=small, batch_tokens=world.batch_tokens
        )
        return figures_of(probe, by_category)

    return analysis


def grid_of(positions: Sequence[str], layers: Sequence[int], options: SweepOptions) -> Analysis:
    """The best AUROC over layers and positions of a world, as `probes.model_sweep.sweep_model` finds it."""

    def analysis(world: World) -> dict[str, float]:
        examples = Examples.of(world.model, world.rollouts, positions)
        small = replace(options, n_shuffles=0, category_folds=0)
        return best_of(sweep_model(world.model, examples, layers, small, batch_tokens=world.batch_tokens))

    return analysis


def best_of(sweep: ProbeSweep) -> dict[str, float]:
    """The figure of a sweep that is set beside a null's."""
    return {BEST: float(sweep.table.loc[sweep.table["control"] == "real", "auroc"].max())}


def figures_of(probe: LinearProbe, by_category: bool) -> dict[str, float]:
    """The figures of a probe's training that are set beside a null's; NaN where there is none."""
    names = {AUROC: "auroc"} | ({AUROC_BY_CATEGORY: "auroc_held_out_category"} if by_category else {})
    return {words: _number(probe.training.get(name)) for words, name in names.items()}


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _judged(
    world: World, probe: LinearProbe, examples: Examples, options: SweepOptions, by_category: bool
) -> dict[str, float]:
    """The AUROC of a probe that no rollout was fitted on: on the held-out side, and on all rollouts."""
    site = check_probe(world.model, probe)
    captured = world.model.capture(examples.transcripts, [site], examples.positions, batch_tokens=world.batch_tokens)
    logits, labels = probe.logit(captured[site][:, 0]).cpu().numpy(), examples.labels.numpy()
    test = make_plan(examples, options).main.split.test
    figures = {AUROC: float(auroc(logits[test], labels[test]))}
    return figures | ({AUROC_BY_CATEGORY: float(auroc(logits, labels))} if by_category else {})


def shuffled_outcomes(rollouts: Sequence[Rollout], seed: int) -> tuple[Rollout, ...]:
    """The rollouts with their outcomes dealt out anew; there are as many of each as before.

    The outcomes of a prompt's rollouts stay together and go to another prompt with as many. Rollouts that are not
    judged stay as they are.

    Raises:
        CliffscopeError: If no two prompts with equally many rollouts differ in their outcomes.
    """
    by_prompt: dict[str, list[int]] = {}
    for index, (rollout, key) in enumerate(zip(rollouts, prompt_keys([r.prompt for r in rollouts]), strict=True)):
        if rollout.outcome != "unknown":
            by_prompt.setdefault(key, []).append(index)
    by_size: dict[int, list[list[int]]] = {}
    for members in by_prompt.values():
        by_size.setdefault(len(members), []).append(members)
    rng, dealt, can_differ = np.random.default_rng([seed, 3]), list(rollouts), False
    for _, groups in sorted(by_size.items()):
        labels = [[(rollouts[index].harmful, rollouts[index].refused) for index in members] for members in groups]
        can_differ |= any(given != labels[0] for given in labels)
        for members, source in zip(groups, rng.permutation(len(groups)).tolist(), strict=True):
            for index, (harmful, refused) in zip(members, labels[source], strict=True):
                dealt[index] = replace(rollouts[index], harmful=harmful, refused=refused)
    if not can_differ:
        raise CliffscopeError("the rollouts have no outcomes to shuffle: no two prompts differ in theirs.")
    return tuple(dealt)


def benign_as_complied(rollouts: Sequence[Rollout], seed: int) -> tuple[Rollout, ...]:
    """The rollouts without the complied ones, and half of the benign ones, by prompt, labelled as complied.

    They are as many as the complied ones at most, if there are any.

    Raises:
        CliffscopeError: If there are not two benign prompts.
    """
    keys = prompt_keys([rollout.prompt for rollout in rollouts])
    benign = sorted({key for key, rollout in zip(keys, rollouts, strict=True) if rollout.outcome == "benign"})
    if len(benign) < 2:
        raise CliffscopeError(f"{len(benign)} benign prompts were answered; to halve them at least 2 are needed.")
    n_complied = sum(rollout.outcome == "complied" for rollout in rollouts)
    drawn = [benign[i] for i in np.random.default_rng([seed, 4]).permutation(len(benign))[: len(benign) // 2]]
    taken = set(drawn[:n_complied] if n_complied else drawn)
    return tuple(
        replace(rollout, harmful=True) if rollout.outcome == "benign" and key in taken else rollout
        for key, rollout in zip(keys, rollouts, strict=True)
        if rollout.outcome != "complied"
    )


def random_probe(world: World, probe: LinearProbe, seed: int) -> LinearProbe:
    """A probe in a random direction, of the same length and at the same place; see the module for sign and bias.

    Raises:
        CliffscopeError: If the probe is of another model, or the rollouts have not both classes.
    """
    site = check_probe(world.model, probe)
    position = probe.position or EDGE
    examples = Examples.of(world.model, world.rollouts, [position])
    captured = world.model.capture(examples.transcripts, [site], [position], batch_tokens=world.batch_tokens)
    activations = captured[site][:, 0].float().cpu()
    drawn = torch.randn(probe.d_model, generator=torch.Generator().manual_seed(seed))
    weight = drawn * (probe.weight.norm() / drawn.norm())
    refused, benign = (float((activations[examples.labels == label] @ weight).double().mean()) for label in (1, 0))
    sign = 1 if refused >= benign else -1
    facts = {"null": "random-direction", "seed": seed}
    return replace(probe, weight=sign * weight, bias=-sign * (refused + benign) / 2, training=facts)


def _refitted(world: World, seed: int) -> World:
    """The world with a probe fitted in it as the one that it has was."""
    if world.probe is None:
        return world
    probe = world.probe
    layer: Any = "norm" if probe.site == FINAL_NORM else "auto"
    if probe.training.get("layer_choice") == "given" and probe.site != FINAL_NORM:
        layer = probe.layer
    try:
        examples = Examples.of(world.model, world.rollouts, [probe.position or EDGE])
        options = SweepOptions(n_shuffles=0, category_folds=0, seed=seed)
        fitted, _ = fit_probe(
            world.model, examples, layer=layer, method=probe.method, options=options, batch_tokens=world.batch_tokens
        )
    except CliffscopeError as error:
        raise CliffscopeError(f"the probe cannot be fitted anew: {str(error).removeprefix('rollouts: ')}") from error
    return replace(world, probe=fitted)
