"""Fitting directions: from two samples of activations, or from rollouts at every layer.

From rollouts, prompts are split once: the direction is fitted on one side, and how well its coordinate tells the two
groups apart is measured on the other. A direction fitted on activations that overlap entirely still has a vector; the
held-out AUROC is what says whether it means anything.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import CliffscopeError
from interp.models.capture import BATCH_TOKENS
from interp.models.sites import FINAL_NORM, resolve_layer
from interp.rollouts import Rollout
from interp.statistics import auroc, auroc_interval
from interventions.directions.contrasts import defaults_of, examples_of, read_contrast, site_at
from interventions.directions.direction import Direction
from interventions.directions.estimators import (
    Shrinkage,
    discriminant,
    mean_difference,
    paired_component,
    random_pairs,
)
from probes.examples import Examples
from probes.inputs import MIN_ROLLOUTS, check_activations
from probes.linear import LinearProbe
from probes.splits import Split, prompt_keys, split_by_prompt

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel

Method = Literal["mean-difference", "probe", "discriminant", "paired-pca"]
METHODS: tuple[str, ...] = get_args(Method)
TEST_FRACTION = 0.3
"""Share of the prompts of each group that is held out."""


def fit_direction(
    positive: Float[Tensor, "n d_model"],
    negative: Float[Tensor, "m d_model"],
    *,
    method: str = "mean-difference",
    pairs: Sequence[tuple[int, int]] | None = None,
    prompts: Sequence[str] | None = None,
    shrinkage: Shrinkage = "auto",
    seed: int = 0,
) -> Direction:
    """The direction from one sample of activations to another, pointing to the positive one.

    Args:
        positive: Activations of the positive class; any float type and device.
        negative: Of the negative class.
        method: `mean-difference`; `probe`: the weight of a logistic `LinearProbe`; `discriminant`: the leading linear
            discriminant; `paired-pca`: the first principal component of paired differences. See
            `interventions.directions.estimators`.
        pairs: `(positive row, negative row)`, for `paired-pca`; random ones if `None`.
        prompts: `[n + m]` texts, positive ones first, for `probe`: rollouts of a prompt share a fold of its
            cross-validation.
        shrinkage: For `discriminant`: in [0, 1], or `auto`.
        seed: Of the folds and of random pairs.

    Returns:
        A direction whose step is the distance of the class means along it, with their coordinates.

    Raises:
        CliffscopeError: If the method is unknown, there are fewer than 8 rows or none of a class, they hold NaN or
            infinity, or do not differ in their means.
    """
    if method not in METHODS:
        raise CliffscopeError(f"method {method!r}: expected one of {', '.join(METHODS)}.")
    n, m = len(positive), len(negative)
    if min(n, m) == 0 or n + m < MIN_ROLLOUTS:
        raise CliffscopeError(
            f"activations: a direction needs both classes and at least {MIN_ROLLOUTS} rollouts, found {n} of the "
            f"positive and {m} of the negative class; add more."
        )
    for sample in (positive, negative):
        check_activations(sample)
    positive, negative = (sample.detach().to(device="cpu", dtype=torch.float32) for sample in (positive, negative))
    facts: dict[str, Any] = {"n_positive": n, "n_negative": m}
    vector = mean_difference(positive, negative)  # also where another is asked for: without one there is no side
    if method == "probe":
        labels = torch.tensor([1] * n + [0] * m)
        probe = LinearProbe.fit(torch.cat([positive, negative]), labels, prompts=prompts, seed=seed)
        vector = probe.direction.double()
        facts |= {"C": probe.training["C"], "seed": seed}
    elif method == "discriminant":
        vector, facts["shrinkage"] = discriminant(positive, negative, shrinkage)
    elif method == "paired-pca":
        facts |= {"pairing": "random" if pairs is None else "given", "seed": seed}
        pairs = random_pairs(n, m, seed) if pairs is None else pairs
        facts["n_pairs"] = len(pairs)
        vector = paired_component(positive, negative, pairs)
    return _oriented(vector, positive, negative, method=method, training=facts)


def fit_directions(
    model: "HookedModel",
    rollouts: Sequence[Rollout] | Examples,
    *,
    kind: str = "refusal",
    contrast: str | None = None,
    method: str = "mean-difference",
    layers: Sequence[int] | None = None,
    position: str | None = None,
    site: str = "hook_resid_post",
    shrinkage: Shrinkage = "auto",
    test_fraction: float = TEST_FRACTION,
    seed: int = 0,
    batch_tokens: int = BATCH_TOKENS,
) -> dict[int, Direction]:
    """One direction a layer, fitted on a part of the prompts and judged on the rest.

    Args:
        model: The model to read.
        rollouts: Judged rollouts; or examples already chosen and labelled, at a single position.
        kind: What the directions stand for; `refusal` and `harmfulness` have defaults.
        contrast: One of `CONTRASTS`; that of the kind if `None`.
        method: See `fit_direction`. Pairs are rollouts of the same prompt where there are at least 8 such pairs.
        layers: Indices; all if `None`.
        position: Where to read; that of the kind if `None`.
        site: A site's name without its layer, or `ln_final.hook_out`, which has only one: the last layer's.
        shrinkage: See `fit_direction`.
        test_fraction: Share of the prompts of each group that is held out.
        seed: Of the split, the folds and the pairs.
        batch_tokens: Token budget of a batch.

    Returns:
        By layer, in the order asked for. `training` tells the contrast, the counts, the rollouts (by a hash of their
        ids and of their prompts), the seed, Cliffscope's version, and `auroc` of the coordinate on held-out prompts
        with its interval.

    Raises:
        CliffscopeError: If a group is missing or too small, the site or a layer does not exist, or the activations are
            NaN or infinite.
    """
    contrast, position = defaults_of(kind, contrast, position)
    site_at(site, 0)
    examples = rollouts if isinstance(rollouts, Examples) else examples_of(model, rollouts, contrast, [position])
    if examples.positions != (position,):
        raise CliffscopeError(f"examples: expected them at {position} alone, found {', '.join(examples.positions)}.")
    split = split_by_prompt(examples.labels.numpy(), examples.prompts, test_fraction, seed)
    cells = fit_cells(
        model, examples, split, layers, site, method=method, shrinkage=shrinkage, seed=seed, batch_tokens=batch_tokens
    )
    return {layer: direction.at(kind=kind, training={"contrast": contrast}) for (layer, _), direction in cells.items()}


def fit_cells(
    model: "HookedModel",
    examples: Examples,
    split: Split,
    layers: Sequence[int] | None,
    site: str = "hook_resid_post",
    *,
    method: str = "mean-difference",
    shrinkage: Shrinkage = "auto",
    seed: int = 0,
    batch_tokens: int = BATCH_TOKENS,
) -> dict[tuple[int, str], Direction]:
    """The directions of labelled examples by layer and position, from one pass over them; see `fit_directions`.

    Raises:
        CliffscopeError: See `fit_directions`.
    """
    wanted = [resolve_layer(layer, model.n_layers) for layer in (range(model.n_layers) if layers is None else layers)]
    if site == FINAL_NORM:
        wanted = [model.n_layers - 1]
    values = read_contrast(model, examples, wanted, site, batch_tokens=batch_tokens)
    facts = provenance(examples, split, seed)
    cells = {}
    for row, layer in enumerate(wanted):
        for column, position in enumerate(examples.positions):
            activations = values[row, :, column]
            fitted = fit_and_judge(activations, examples, split, method=method, shrinkage=shrinkage, seed=seed)
            cells[layer, position] = fitted.at(
                model=model.name,
                fingerprint=model.fingerprint,
                layer=layer,
                site=site_at(site, layer),
                position=position,
                training=facts,
            )
    return cells


def fit_and_judge(
    activations: Float[Tensor, "rollout d_model"],
    examples: Examples,
    split: Split,
    *,
    method: str = "mean-difference",
    shrinkage: Shrinkage = "auto",
    seed: int = 0,
) -> Direction:
    """A direction fitted on the training side of a split, with its coordinate's AUROC on the held-out side.

    Raises:
        CliffscopeError: See `fit_direction`.
    """
    rows = {label: [int(i) for i in split.train if examples.labels[i] == label] for label in (1, 0)}
    prompts = [examples.prompts[i] for i in (*rows[1], *rows[0])]
    direction = fit_direction(
        activations[rows[1]],
        activations[rows[0]],
        method=method,
        pairs=_pairs_by_prompt(prompts, len(rows[1])) if method == "paired-pca" else None,
        prompts=prompts,
        shrinkage=shrinkage,
        seed=seed,
    )
    coordinate = direction.coordinates(activations[split.test])[:, 0].numpy()
    labels = examples.labels[split.test].numpy()
    interval = auroc_interval(coordinate, labels, seed=seed)
    return direction.at(
        training={
            "auroc": float(auroc(coordinate, labels)),
            "auroc_low": interval.low,
            "auroc_high": interval.high,
        }
    )


def best_layer(directions: Mapping[int, Direction]) -> int:
    """The deepest layer whose held-out AUROC is at least the lower bound of the best layer's interval.

    That is how the layer of a probe is chosen: where many layers tell the groups apart, the deepest knows most of what
    the model made of them. The AUROC of the chosen layer was looked at to choose it. Where a direction *acts* is
    another question, which `choose_direction` answers.

    Raises:
        CliffscopeError: If there is no direction, or one was not judged.
    """
    judged = {layer: direction.training for layer, direction in directions.items()}
    areas = {layer: _or_nan(facts.get("auroc")) for layer, facts in judged.items()}
    # A held-out side with one class only has no AUROC.
    if not areas or any(math.isnan(area) for area in areas.values()):
        raise CliffscopeError(
            "directions: there is none, or one was not judged on held-out rollouts of both groups; name the layer."
        )
    best = max(areas, key=lambda layer: (areas[layer], layer))
    low = _or_nan(judged[best].get("auroc_low"))
    bound = areas[best] if math.isnan(low) else min(low, areas[best])
    return max(layer for layer, area in areas.items() if area >= bound)


def provenance(examples: Examples, split: Split, seed: int) -> dict[str, Any]:
    """What a direction was fitted on, as facts that JSON can hold."""
    held = examples.labels[split.test]
    return {
        "n_test_positive": int((held == 1).sum()),
        "n_test_negative": int((held == 0).sum()),
        "skipped": dict(examples.skipped),
        "ids_sha256": _digest(sorted(examples.ids)),
        "prompts_sha256": _digest(sorted(set(examples.prompts))),
        "seed": seed,
        "cliffscope": version("cliffscope"),
    }


def _or_nan(value: float | None) -> float:
    """A fact as a number; a file holds null for NaN."""
    return math.nan if value is None else value


def _digest(texts: Sequence[str]) -> str:
    return hashlib.sha256("\x00".join(texts).encode()).hexdigest()


def _oriented(vector: Tensor, positive: Tensor, negative: Tensor, **facts: Any) -> Direction:
    """The direction along a vector, turned towards the positive class, with the class means' distance as its step."""
    unit = Direction.of(vector)
    means = [unit.coordinates(sample.double().mean(0)) for sample in (positive, negative)]
    gap = float(means[0] - means[1])
    if gap == 0:
        raise CliffscopeError("activations: both classes have the same mean along the direction that was found.")
    side = 1 if gap > 0 else -1
    return Direction(side * unit.basis, abs(gap), positive=side * means[0], negative=side * means[1], **facts)


def _pairs_by_prompt(prompts: Sequence[str], n_positive: int) -> list[tuple[int, int]] | None:
    """Rows of the same prompt, positive and negative, each row used once; `None` for fewer than 8 pairs."""
    keys = prompt_keys(prompts)
    waiting: dict[str, list[int]] = {}
    for row, key in enumerate(keys[n_positive:]):
        waiting.setdefault(key, []).append(row)
    pairs = [(row, waiting[key].pop(0)) for row, key in enumerate(keys[:n_positive]) if waiting.get(key)]
    return pairs if len(pairs) >= MIN_ROLLOUTS else None
