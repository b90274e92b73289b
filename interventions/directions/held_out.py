"""How well a direction tells its groups apart on categories that it did not see, and where there is nothing to see.

For every group of categories that is held out (`probes.splits.splits_by_category`) the direction is fitted on the
others, at the layer that separates an inner held-out side of those best (`probes.category_search` says why). The
coordinates are pooled on one scale: 0 halfway between the class means that the fit saw, 1 their distance.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from interp.errors import CliffscopeError
from interp.models.capture import BATCH_TOKENS
from interp.models.sites import FINAL_NORM, resolve_layer
from interp.null_runs import NullRuns
from interp.statistics import auroc, auroc_interval
from interventions.directions.contrasts import defaults_of, examples_of, read_contrast
from interventions.directions.direction import Direction
from interventions.directions.fitting import TEST_FRACTION, best_layer, fit_cells, fit_direction
from probes.category_search import deepest_as_good
from probes.examples import Examples
from probes.nulls import AUROC, AUROC_BY_CATEGORY, Analysis, World
from probes.splits import Indices, split_by_prompt, splits_by_category

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel

N_FOLDS = 4
"""Groups of categories that are held out in turn."""


def category_facts_of(
    model: "HookedModel",
    examples: Examples,
    layers: Sequence[int] | None,
    site: str = "hook_resid_post",
    *,
    method: str = "mean-difference",
    seed: int = 0,
    batch_tokens: int = BATCH_TOKENS,
) -> dict[str, Any]:
    """Training facts: `auroc_held_out_category` with its interval, or `no_held_out_category`, why there is none.

    Args:
        model: The model to read.
        examples: The rollouts with their groups, at a single position.
        layers: Among which the layer is chosen, without the categories held out; all if `None`.
        site: A site's name without its layer.
        method: See `interventions.directions.fitting.fit_direction`.
        seed: Of the splits.
        batch_tokens: Token budget of a batch.
    """
    labels, prompts = examples.labels.numpy(), examples.prompts
    if examples.categories is None:
        return {"no_held_out_category": "the rollouts have no categories"}
    wanted = [resolve_layer(layer, model.n_layers) for layer in (range(model.n_layers) if layers is None else layers)]
    if site == FINAL_NORM:
        wanted = [model.n_layers - 1]
    values = read_contrast(model, examples, wanted, site, batch_tokens=batch_tokens)[:, :, 0]
    pooled, chosen = np.empty(len(labels)), []
    try:
        for split in splits_by_category(labels, examples.categories, prompts, N_FOLDS, seed):
            row = _choose(values, examples, split.train, wanted, method, seed)
            fitted = _fit(values[row], examples, split.train, method, seed)
            pooled[split.test] = _on_one_scale(fitted, values[row][split.test])
            chosen.append(wanted[row])
    except CliffscopeError as error:
        return {"no_held_out_category": str(error)}
    interval = auroc_interval(pooled, labels, seed=seed)
    facts: dict[str, Any] = {"auroc_held_out_category": float(auroc(pooled, labels))}
    facts |= {"auroc_held_out_category_low": interval.low, "auroc_held_out_category_high": interval.high}
    return facts | {"layers_held_out_category": chosen}


def auroc_of_direction(
    kind: str,
    contrast: str | None,
    position: str | None,
    layers: Sequence[int] | None,
    site: str,
    method: str,
    seed: int,
    by_category: bool,
) -> Analysis:
    """The held-out AUROC of the best direction of a world, for its nulls.

    Args:
        kind: See `interventions.directions.fitting.fit_directions`.
        contrast: See there.
        position: See there.
        layers: Among which the layer is chosen by AUROC; all if `None`.
        site: See there.
        method: See there.
        seed: Of the splits.
        by_category: Whether to give the AUROC on held-out categories too; NaN where a world has none.
    """
    contrast, position = defaults_of(kind, contrast, position)

    def analysis(world: World) -> dict[str, float]:
        examples = examples_of(world.model, world.rollouts, contrast, [position])
        split = split_by_prompt(examples.labels.numpy(), examples.prompts, TEST_FRACTION, seed)
        shared: dict[str, Any] = {"method": method, "seed": seed, "batch_tokens": world.batch_tokens}
        cells = fit_cells(world.model, examples, split, layers, site, **shared)
        directions = {layer: direction for (layer, _), direction in cells.items()}
        figures = {AUROC: float(directions[best_layer(directions)].training["auroc"])}
        if by_category:
            facts = category_facts_of(world.model, examples, layers, site, **shared)
            figures[AUROC_BY_CATEGORY] = float(facts.get("auroc_held_out_category", np.nan))
        return figures

    return analysis


def random_direction_runs(
    model: "HookedModel", examples: Examples, direction: Direction, *, runs: int, seed: int, batch_tokens: int
) -> NullRuns:
    """The held-out AUROC of a direction beside those of random ones at its place, each turned to the positive group.

    Raises:
        CliffscopeError: If the direction does not say where it is.
    """
    if direction.site is None or direction.position is None:
        raise CliffscopeError("direction: it does not say at which site and position it is.")
    captured = model.capture(examples.transcripts, [direction.site], [direction.position], batch_tokens=batch_tokens)
    activations, labels = captured[direction.site][:, 0], examples.labels.numpy()
    split = split_by_prompt(labels, examples.prompts, TEST_FRACTION, int(direction.training.get("seed", 0)))
    values = []
    for run in range(runs):
        coordinates = direction.random_like(seed + run).coordinates(activations)[:, 0].numpy()
        train = [coordinates[split.train][labels[split.train] == label].mean() for label in (1, 0)]
        sign = 1 if train[0] >= train[1] else -1
        values.append(float(auroc(sign * coordinates[split.test], labels[split.test])))
    return NullRuns("random-direction", AUROC, float(direction.training["auroc"]), tuple(values), seed)


def _choose(values: Tensor, examples: Examples, rows: Indices, layers: Sequence[int], method: str, seed: int) -> int:
    """The place among the layers of the one that separates an inner held-out side of some rows best."""
    if len(layers) == 1:
        return 0
    labels = examples.labels.numpy()
    inner = split_by_prompt(labels[rows], [examples.prompts[i] for i in rows], TEST_FRACTION, seed)
    train, test = rows[inner.train], rows[inner.test]
    areas, lows = [], []
    for activations in values:
        coordinates = _on_one_scale(_fit(activations, examples, train, method, seed), activations[test])
        areas.append(float(auroc(coordinates, labels[test])))
        lows.append(auroc_interval(coordinates, labels[test], seed=seed).low)
    layer = deepest_as_good(layers, areas, lows)
    if layer is None:
        raise CliffscopeError("without a group of categories one class is too small to choose a layer by.")
    return list(layers).index(layer)


def _fit(activations: Tensor, examples: Examples, rows: Indices, method: str, seed: int) -> Direction:
    labels = examples.labels.numpy()
    positive, negative = (rows[labels[rows] == label] for label in (1, 0))
    prompts = [examples.prompts[i] for i in (*positive, *negative)]
    sides = activations[torch.as_tensor(positive)], activations[torch.as_tensor(negative)]
    return fit_direction(*sides, method=method, prompts=prompts, seed=seed)


def _on_one_scale(direction: Direction, activations: Tensor) -> np.ndarray:
    assert direction.positive is not None and direction.negative is not None, "fitted directions know their means"
    high, low = float(direction.positive[0]), float(direction.negative[0])
    found: np.ndarray = direction.coordinates(activations)[:, 0].double().numpy()
    return (found - (high + low) / 2) / (high - low)
