"""Whether harmfulness and refusal are two things in a model: the cosine of their directions, layer by layer.

After Zhao et al. 2025 (arXiv 2507.11878): harmfulness is the mean difference of harmful and benign prompts at `inst`,
refusal that of refused and answered harmful prompts at `post_inst`; and, because a reasoning model decides after its
thinking, also at the edge. A cosine alone says little, because a direction fitted on few rollouts is mostly noise, and
two noisy estimates of one and the same direction have a cosine well below 1. So each comes with

- a bootstrap 95 % interval over prompts. A resample's means are noisier than the sample's, which pulls every resampled
  cosine towards 0; the interval is moved back by that bias (on Fisher's z), so that it lies about the estimate;
- the *ceiling*: the cosine that two estimates of one direction would have at these sample sizes, √(R₁R₂), where R is a
  direction's reliability: the mean cosine r of the same direction fitted on random halves of the prompts, stepped up
  to the whole by 2r / (1 + r) (Spearman and Brown);
- the *chance* band: 95 % of the cosines of directions fitted on labels that were shuffled over prompts. Activations
  are far from isotropic, so that it is wider than 1/√d.

The two are apart at a layer if the interval's upper end lies below the ceiling. All of it is linear in the
activations: a direction is a weighting of rollouts, and a cosine needs only their Gram matrices.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from interp.errors import CliffscopeError
from interp.models.capture import BATCH_TOKENS
from interp.rollouts import Rollout
from interp.statistics import bootstrap_counts, percentile_bounds
from interp.transcripts.positions import EDGE
from interventions.directions.contrasts import contrast_of, examples_of, read_contrast
from probes.examples import Examples
from probes.model_sweep import ACTIVATION_BYTES
from probes.splits import prompt_keys

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel

RESAMPLES = 1000
HALVES = 100
"""Random divisions of the prompts into halves."""
SHUFFLES = 500


@dataclass(frozen=True)
class Reading:
    """A direction: which contrast at which position.

    Attributes:
        name: For tables.
        contrast: One of `interventions.directions.contrasts.CONTRASTS`.
        position: Where it is read.
    """

    name: str
    contrast: str
    position: str


HARMFULNESS = Reading("harmfulness at inst", "harmful-benign", "inst")


def readings(refusal_contrast: str = "refused-complied", edge: bool = True) -> tuple[Reading, ...]:
    """Harmfulness, and refusal at `post_inst` and, for a model that thinks, at the edge."""
    found = (HARMFULNESS, Reading("refusal at post_inst", refusal_contrast, "post_inst"))
    return (*found, Reading("refusal at edge", refusal_contrast, EDGE)) if edge else found


def examples_apart(model: "HookedModel", rollouts: Sequence[Rollout]) -> tuple[Examples, bool]:
    """The rollouts that have `inst`, `post_inst` and, if any has one, the edge; and whether any has.

    Raises:
        CliffscopeError: If there are too few of harmful or of benign prompts.
    """
    has_edge = any(rollout.thinking is not None and rollout.response is not None for rollout in rollouts)
    positions = ["inst", "post_inst", *([EDGE] if has_edge else [])]
    return examples_of(model, rollouts, "harmful-benign", positions), has_edge


@dataclass(frozen=True, eq=False)
class Cosines:
    """Cosines of pairs of directions.

    Attributes:
        table: Columns first, second (names of readings), layer, cosine, low, high, reliability_first,
            reliability_second, ceiling, chance_low, chance_high, apart.
        n: Rollouts of each group: harmful, benign, and of each group of the refusal contrast.
    """

    table: pd.DataFrame
    n: dict[str, int]

    @cached_property
    def verdicts(self) -> tuple[str, ...]:
        """One sentence a pair: at which layers the two are apart."""
        found = []
        for (first, second), rows in self.table.groupby(["first", "second"], sort=False):
            layers = rows["layer"].tolist()
            apart = rows.loc[rows["apart"], "layer"].tolist()
            chance = rows[(rows["cosine"] >= rows["chance_low"]) & (rows["cosine"] <= rows["chance_high"])]
            told = (
                f"cosine {_span(rows['cosine'])} over layers {_runs(layers)}, where two estimates of one direction "
                f"would have {_span(rows['ceiling'])}"
            )
            if not apart:
                verdict = "nowhere shown to be two directions"
            else:
                verdict = f"two directions at layers {_runs(apart)}"
                verdict += "" if apart == layers else ", not shown elsewhere"
            if len(chance):
                verdict += f"; no closer than shuffled labels at layers {_runs(chance['layer'].tolist())}"
            found.append(f"{str(first).capitalize()} and {second}: {told}: {verdict}.")
        return tuple(found)


def measure_cosines(
    model: "HookedModel",
    examples: Examples,
    chosen: Sequence[Reading],
    *,
    layers: Sequence[int] | None = None,
    seed: int = 0,
    batch_tokens: int = BATCH_TOKENS,
) -> Cosines:
    """The cosine of every pair of readings at every layer, with interval, ceiling and chance band.

    Args:
        model: The model to read.
        examples: Rollouts that have all positions; see `examples_apart`.
        chosen: What to compare, in pairs.
        layers: Indices from 0; all if `None`.
        seed: Of the bootstrap, the halves and the shuffles.
        batch_tokens: Token budget of a batch.

    Raises:
        CliffscopeError: If a group of a contrast has fewer than four prompts, or activations are NaN.
    """
    clusters = np.unique(prompt_keys(examples.prompts), return_inverse=True)[1]
    labels = [_labels(examples, reading.contrast) for reading in chosen]
    for reading, mine in zip(chosen, labels, strict=True):
        _check_prompts(reading, mine, clusters)
    plans = make_weightings(labels, clusters, seed)
    counts = {
        f"{reading.contrast} {sign}": int((mine == value).sum())
        for reading, mine in zip(chosen, labels, strict=True)
        for sign, value in (("+", 1), ("−", 0))
    }
    rows: list[dict[str, Any]] = []
    wanted = range(model.n_layers) if layers is None else layers
    for layer, states in states_by_layer(model, examples, wanted, batch_tokens):
        held = {name: states[:, place].double() for place, name in enumerate(examples.positions)}
        centred = {name: (h - h.mean(0)).numpy() for name, h in held.items()}
        grams = {(a, b): centred[a] @ centred[b].T for a in centred for b in centred}
        for i, first in enumerate(chosen):
            for j in range(i + 1, len(chosen)):
                found = compare(plans[i], plans[j], grams, first.position, chosen[j].position)
                rows.append({"first": first.name, "second": chosen[j].name, "layer": layer, **found})
    place = {reading.name: number for number, reading in enumerate(chosen)}
    rows.sort(key=lambda row: (place[row["first"]], place[row["second"]], row["layer"]))
    return Cosines(pd.DataFrame(rows), counts)


def states_by_layer(
    model: "HookedModel", examples: Examples, layers: Sequence[int], batch_tokens: int = BATCH_TOKENS
) -> Iterator[tuple[int, Float[Tensor, "rollout position d_model"]]]:
    """The residual stream after each layer at the examples' positions, as many layers from one pass as memory allows.

    Raises:
        CliffscopeError: If a value is NaN or infinite.
    """
    one_layer = 4 * len(examples.transcripts) * len(examples.positions) * model.d_model
    at_once = max(1, ACTIVATION_BYTES // one_layer)
    for start in range(0, len(layers), at_once):
        group = list(layers[start : start + at_once])
        yield from zip(group, read_contrast(model, examples, group, batch_tokens=batch_tokens), strict=True)


@dataclass(frozen=True, eq=False)
class Weightings:
    """One direction as weightings of rollouts.

    Attributes:
        estimate: 1/n₁ for each of the positive class, −1/n₀ for each of the negative one.
        resampled: The same of bootstrap resamples of the prompts.
        first_half, second_half: Of a random half of the prompts, and of the other.
        shuffled: Of labels shuffled over prompts.
    """

    estimate: Float[np.ndarray, "1 rollout"]
    resampled: Float[np.ndarray, "resample rollout"]
    first_half: Float[np.ndarray, "half rollout"]
    second_half: Float[np.ndarray, "half rollout"]
    shuffled: Float[np.ndarray, "shuffle rollout"]


def make_weightings(
    labels: Sequence[Int[np.ndarray, " rollout"]], clusters: Int[np.ndarray, " rollout"], seed: int = 0
) -> list[Weightings]:
    """Draws the weightings of several directions.

    The prompts of a resample are drawn once for all directions, so that what two of them share by sharing prompts is
    in the interval; each class of each direction keeps its number of prompts. Halves and shuffles are each direction's
    own.

    Args:
        labels: For each direction 1 positive, 0 negative, −1 neither.
        clusters: The prompt of each rollout, from 0.
        seed: Of the draws.
    """
    strata = [_majority(mine, clusters) for mine in labels]
    joint = np.unique(np.stack(strata), axis=1, return_inverse=True)[1].reshape(-1)
    counts = bootstrap_counts(len(joint), RESAMPLES, seed, joint)[:, clusters]
    ones = np.ones((1, len(clusters)))
    found = []
    for number, (mine, own) in enumerate(zip(labels, strata, strict=True)):
        rng = np.random.default_rng([seed, 1, number])
        halves = np.stack([_half(own, rng) for _ in range(HALVES)])[:, clusters].astype(np.float64)
        shuffled = [_weights(_shuffled(mine, own, clusters, rng), ones) for _ in range(SHUFFLES)]
        found.append(
            Weightings(
                _weights(mine, ones),
                _weights(mine, counts),
                _weights(mine, halves),
                _weights(mine, 1 - halves),
                np.concatenate(shuffled),
            )
        )
    return found


def compare(
    first: Weightings, second: Weightings, grams: dict[tuple[str, str], np.ndarray], here: str, there: str
) -> dict[str, float | bool]:
    """The figures of one pair at one layer; `here` and `there` are the positions of the two."""
    mixed, own = grams[here, there], (grams[here, here], grams[there, there])
    cosine = float(_cosine(first.estimate, second.estimate, mixed, *own)[0])
    drawn = _cosine(first.resampled, second.resampled, mixed, *own)
    low, high = _interval(cosine, drawn)
    reliability = [
        float(np.mean(_cosine(plan.first_half, plan.second_half, gram, gram, gram)))
        for plan, gram in zip((first, second), own, strict=True)
    ]
    whole = [max(0.0, 2 * r / (1 + r)) for r in reliability]
    ceiling = float(np.sqrt(whole[0] * whole[1]))
    chance = percentile_bounds(_cosine(first.shuffled, second.shuffled, mixed, *own))
    return {
        "cosine": cosine,
        "low": low,
        "high": high,
        "reliability_first": whole[0],
        "reliability_second": whole[1],
        "ceiling": ceiling,
        "chance_low": float(chance[0]),
        "chance_high": float(chance[1]),
        "apart": high < ceiling,
    }


def _interval(cosine: float, drawn: np.ndarray) -> tuple[float, float]:
    """The percentile interval of resampled cosines, moved so that their mean is the estimate, on Fisher's z."""
    limit = 1 - 1e-12
    z = np.arctanh(np.clip(drawn, -limit, limit))
    low, high = percentile_bounds(z)
    moved = np.arctanh(np.clip(cosine, -limit, limit)) - z.mean()
    return float(np.tanh(low + moved)), float(np.tanh(high + moved))


def _cosine(u: np.ndarray, v: np.ndarray, mixed: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The cosine of the directions that two weightings `[row, rollout]` make, row by row."""
    inner = ((u @ mixed) * v).sum(1)
    norms = ((u @ left) * u).sum(1) * ((v @ right) * v).sum(1)
    return np.clip(inner / np.sqrt(norms), -1, 1)


def _weights(labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """How much each rollout counts in mean₁ − mean₀, for each row of counts `[row, rollout]`."""
    positive, negative = counts * (labels == 1), counts * (labels == 0)
    return positive / positive.sum(1, keepdims=True) - negative / negative.sum(1, keepdims=True)


def _labels(examples: Examples, contrast: str) -> Int[np.ndarray, " rollout"]:
    labels = np.full(len(examples.rollouts), -1)
    for value, members in zip((1, 0), contrast_of(examples, contrast), strict=True):
        labels[members] = value
    return labels


def _majority(labels: np.ndarray, clusters: np.ndarray) -> Int[np.ndarray, " prompt"]:
    """The commoner label of each prompt's rollouts; −1 where all are of neither class."""
    votes = np.zeros((int(clusters.max()) + 1, 2))
    np.add.at(votes, (clusters[labels >= 0], labels[labels >= 0]), 1)
    return np.where(votes.sum(1) == 0, -1, votes.argmax(1))


def _half(strata: np.ndarray, rng: np.random.Generator) -> NDArray[np.bool_]:
    """A random half of the prompts of each class."""
    chosen = np.zeros(len(strata), dtype=bool)
    for label in np.unique(strata):
        members = rng.permutation(np.flatnonzero(strata == label))
        chosen[members[: len(members) // 2]] = True
    return chosen


def _shuffled(labels: np.ndarray, strata: np.ndarray, clusters: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Labels permuted over prompts; rollouts of neither class stay so."""
    mixed = strata.copy()
    known = strata >= 0
    mixed[known] = rng.permutation(strata[known])
    return np.where(labels >= 0, mixed[clusters], -1)


def _check_prompts(reading: Reading, labels: np.ndarray, clusters: np.ndarray) -> None:
    strata = _majority(labels, clusters)
    for value, group in zip((1, 0), reading.contrast.split("-"), strict=True):
        if (n := int((strata == value).sum())) < 4:
            raise CliffscopeError(
                f"rollouts: {reading.name} ({reading.contrast}) has {n} prompts that are {group}: at least 4 are "
                "needed to divide them into halves; add judged rollouts"
                + (", or take the contrast refused-benign." if reading.contrast == "refused-complied" else ".")
            )


def _runs(layers: Sequence[int]) -> str:
    """`0–3, 5`."""
    found = []
    for _, run in groupby(enumerate(sorted(layers)), key=lambda item: item[1] - item[0]):
        members = [layer for _, layer in run]
        found.append(str(members[0]) if len(members) == 1 else f"{members[0]}–{members[-1]}")
    return ", ".join(found)


def _span(values: "pd.Series[float]") -> str:
    low, high = float(values.min()), float(values.max())
    return f"{low:.2f}" if f"{low:.2f}" == f"{high:.2f}" else f"{low:.2f} to {high:.2f}"
