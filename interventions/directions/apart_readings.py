"""Where rollouts lie along harmfulness and along refusal: on prompts held out from the directions, and in two models.

A coordinate is told in steps between the classes of its own direction: 0 is the mean of the negative class, 1 that of
the positive one, both of the prompts fitted on. So "complied − refused" of −1 along refusal says that the two are as
far apart as can be, and of 0 along harmfulness that a complied prompt is held for as harmful as a refused one.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from torch import Tensor

from interp.errors import CliffscopeError
from interp.judges.edge_logit import refusal_logit, refusal_token_ids
from interp.models.capture import BATCH_TOKENS
from interp.models.sites import resid_post
from interp.significance import difference_and_interval, mean_and_interval
from interp.transcripts.positions import EDGE
from interventions.directions.apart import Reading, states_by_layer
from interventions.directions.contrasts import contrast_of, read_contrast
from interventions.directions.direction import Direction
from interventions.directions.fitting import fit_direction
from probes.examples import Examples
from probes.splits import prompt_keys, split_by_prompt

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel

GROUPS = ("refused", "complied", "benign", "benign_refused")
"""Outcomes, in the order of tables."""

DIFFERENCE = "complied − refused"
LOGIT = "refusal logit at edge"


def fit_readings(
    model: "HookedModel",
    examples: Examples,
    chosen: Sequence[Reading],
    layer: int,
    *,
    rows: Sequence[int] | None = None,
    batch_tokens: int = BATCH_TOKENS,
) -> tuple[dict[str, Direction], Float[Tensor, "rollout position d_model"]]:
    """Each reading's mean difference at a layer, fitted on some of the rollouts, and the states of all of them.

    Args:
        model: The model to read.
        examples: Rollouts that have all positions.
        chosen: What to fit.
        layer: Index from 0.
        rows: The rollouts to fit on; all if `None`.
        batch_tokens: Token budget of a batch.

    Raises:
        CliffscopeError: If a class is missing among them, or activations are NaN.
    """
    states = read_contrast(model, examples, [layer], batch_tokens=batch_tokens)[0]
    return _fit(model, examples, chosen, layer, states, rows), states


def _fit(
    model: "HookedModel",
    examples: Examples,
    chosen: Sequence[Reading],
    layer: int,
    states: Float[Tensor, "rollout position d_model"],
    rows: Sequence[int] | None = None,
) -> dict[str, Direction]:
    """Each reading's direction at a layer whose states are known."""
    allowed = set(range(len(states)) if rows is None else rows)
    found = {}
    for reading in chosen:
        groups = [[row for row in members if row in allowed] for members in contrast_of(examples, reading.contrast)]
        values = states[:, examples.positions.index(reading.position)]
        found[reading.name] = fit_direction(values[groups[0]], values[groups[1]]).at(
            kind=reading.name.split()[0],
            model=model.name,
            fingerprint=model.fingerprint,
            layer=layer,
            site=resid_post(layer),
            position=reading.position,
            training={"contrast": reading.contrast},
        )
    return found


def held_out_coordinates(
    model: "HookedModel",
    examples: Examples,
    chosen: Sequence[Reading],
    layers: Sequence[int],
    *,
    seed: int = 0,
    batch_tokens: int = BATCH_TOKENS,
) -> pd.DataFrame:
    """Where held-out rollouts of each outcome lie along each reading, layer by layer.

    Returns:
        Columns layer, reading, group (outcomes, and `complied − refused`), n, mean, low, high (bootstrap 95 % over
        prompts).

    Raises:
        CliffscopeError: If half of the prompts do not determine the directions.
    """
    outcome = np.array([rollout.outcome for rollout in examples.rollouts])
    split = split_by_prompt(examples.labels.numpy(), examples.prompts, 0.5, seed)
    keys = np.array(prompt_keys(examples.prompts))
    rows: list[dict[str, Any]] = []
    for layer, states in states_by_layer(model, examples, layers, batch_tokens):
        directions = _fit(model, examples, chosen, layer, states, [int(row) for row in split.train])
        for reading in chosen:
            value = _steps(directions[reading.name], states[:, examples.positions.index(reading.position)])
            place = {"layer": layer, "reading": reading.name}
            groups = {name: split.test[outcome[split.test] == name] for name in GROUPS}
            for name, members in groups.items():
                if len(members):
                    mean, low, high = mean_and_interval(value[members], clusters=keys[members], seed=seed)
                    rows.append({**place, "group": name, "n": len(members), **_bounds(mean, low, high)})
            pair = groups["complied"], groups["refused"]
            if min(map(len, pair)) >= 2:
                rows.append(
                    {**place, "group": DIFFERENCE, "n": sum(map(len, pair)), **_difference(value, pair, keys, seed)}
                )
    return pd.DataFrame(rows)


def compare_models(
    model: "HookedModel",
    other: "HookedModel",
    examples: Examples,
    chosen: Sequence[Reading],
    layers: Sequence[int],
    *,
    seed: int = 0,
    batch_tokens: int = BATCH_TOKENS,
) -> pd.DataFrame:
    """What differs between two models on the same tokens: harmful rollouts of one, read by both.

    Both are read along the first model's directions and at the same tokens, thinking included: what differs is what the
    models compute, not what they wrote. The refusal logit at the edge is each model's own. The directions are fitted on
    these rollouts, so that the first model's own means along refusal are 0 and 1; the finding is the other's.

    Args:
        model: The model whose rollouts these are.
        other: A model of the same architecture and tokens, for instance the one that it was trained from.
        examples: Rollouts of `model` that have all positions.
        chosen: What to read.
        layers: Indices from 0.
        seed: Of the bootstrap.
        batch_tokens: Token budget of a batch.

    Returns:
        Columns layer (none for the logit), reading, group (`complied`, `refused`: by the first model), n, model, other,
        difference, low, high: means, and the paired difference model − other with its bootstrap 95 % interval over
        prompts.

    Raises:
        CliffscopeError: If the two are not of one architecture, or activations are NaN.
    """
    if model.fingerprint != other.fingerprint:
        differing = sorted(key for key, value in model.fingerprint.items() if other.fingerprint.get(key) != value)
        raise CliffscopeError(
            f"{other.name}: is not of the architecture of {model.name} ({', '.join(differing)} differ); give the model "
            "that it was trained from."
        )
    outcome = np.array([rollout.outcome for rollout in examples.rollouts])
    keys = np.array(prompt_keys(examples.prompts))
    rows: list[dict[str, Any]] = []

    def add(layer: int | None, reading: str, mine: np.ndarray, theirs: np.ndarray) -> None:
        for group in ("complied", "refused"):
            members = np.flatnonzero(outcome == group)
            if not len(members):
                continue
            paired = (mine - theirs)[members]
            mean, low, high = mean_and_interval(paired, clusters=keys[members], seed=seed)
            told: dict[str, Any] = {"layer": layer, "reading": reading, "group": group, "n": len(members)}
            told |= {"model": float(mine[members].mean()), "other": float(theirs[members].mean())}
            rows.append({**told, "difference": float(mean), "low": float(low), "high": float(high)})

    both = (states_by_layer(one, examples, layers, batch_tokens) for one in (model, other))
    for (layer, mine), (_, theirs) in zip(*both, strict=True):
        directions = _fit(model, examples, chosen, layer, mine)
        for reading in chosen:
            place = examples.positions.index(reading.position)
            add(layer, reading.name, *(_steps(directions[reading.name], h[:, place]) for h in (mine, theirs)))
    if EDGE in examples.positions:
        add(None, LOGIT, *(_edge_logits(one, examples, batch_tokens) for one in (model, other)))
    return pd.DataFrame(rows).astype({"layer": "Int64"})


def _edge_logits(model: "HookedModel", examples: Examples, batch_tokens: int) -> Float[np.ndarray, " rollout"]:
    tokens = refusal_token_ids(model.tokenizer, model.chat.thinking.close)

    def reduce(logits: Float[Tensor, "batch 1 d_vocab"]) -> Float[Tensor, "batch 1"]:
        return refusal_logit(logits[:, 0], tokens)[:, None]

    read = model.logits(examples.transcripts, [EDGE], reduce=reduce, batch_tokens=batch_tokens)
    return read[:, 0].double().numpy()


def _steps(direction: Direction, h: Float[Tensor, "rollout d_model"]) -> Float[np.ndarray, " rollout"]:
    """Coordinates with the negative class' mean at 0 and the positive one's at 1."""
    assert direction.positive is not None and direction.negative is not None
    coordinate = direction.coordinates(h)[:, 0]
    return ((coordinate - direction.negative[0]) / (direction.positive[0] - direction.negative[0])).double().numpy()


def _difference(
    value: np.ndarray, pair: tuple[np.ndarray, np.ndarray], keys: np.ndarray, seed: int
) -> dict[str, float]:
    """Mean of the first group minus that of the second, prompts drawn with replacement within each."""
    first, second = pair
    clusters = keys[first], keys[second]
    return _bounds(*difference_and_interval(value[first], value[second], clusters=clusters, seed=seed))


def _bounds(mean: Any, low: Any, high: Any) -> dict[str, float]:
    return {"mean": float(mean), "low": float(low), "high": float(high)}
