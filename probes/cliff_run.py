"""Measuring the cliff of a model: trajectories, controls, and the depth at which it appears, in two passes."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from interp.errors import CliffscopeError
from interp.judges.evasion import response_kind
from interp.models.capture import BATCH_TOKENS
from interp.models.sites import resid_post
from interp.rollouts import Rollout
from interp.statistics import bootstrap_interval
from interp.transcripts import Transcript
from interp.transcripts.positions import EDGE
from probes.cliff import OUTCOMES, STATISTIC, Cliff, Plateau, measure, plateau_and_fall
from probes.examples import TEACHES
from probes.fitting import fit_logistic
from probes.inputs import MIN_ROLLOUTS, check_activations
from probes.linear import LinearProbe
from probes.nulls import Analysis, World
from probes.splits import folds_by_prompt, permuted_within
from probes.trajectory import MeanTrajectory, Trajectory, average, check_probe, score_tokens, sigmoid

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel

N_SHUFFLES = 39
"""Probes on shuffled labels; 39 make 1/40 the smallest p."""


def measure_cliff(
    model: "HookedModel",
    probe: LinearProbe,
    rollouts: Sequence[Rollout],
    *,
    plateau: Plateau = "mean",
    n_shuffles: int = N_SHUFFLES,
    by_layer: bool = True,
    seed: int = 0,
    batch_tokens: int = BATCH_TOKENS,
    advance: Callable[[int], None] = lambda amount: None,
) -> Cliff:
    """Scores every rollout along its thinking and close tokens, and measures the cliff against its controls.

    Beside the given probe, one is fitted at the edge of every layer on the refused and benign rollouts, and several at
    the given probe's site on shuffled labels; all of them score the same pass. Complied rollouts, of which the cliff is
    asked, are in no fit.

    Args:
        model: The model that gave the rollouts, or one to compare it with.
        probe: Scores the tokens.
        rollouts: Judged rollouts: complied ones, with refused and benign ones as controls.
        plateau: `mean` or `max` over the second half of the thinking.
        n_shuffles: Probes on shuffled labels.
        by_layer: Whether to measure the mean cliff by layer too; the pass then goes to the last layer.
        seed: Of shuffles and bootstrap.
        batch_tokens: Token budget of a batch.
        advance: Called with the number of rollouts just scored.

    Raises:
        CliffscopeError: If the probe was made for another model, or no rollout has thinking that ends.
    """
    site = check_probe(model, probe)
    chosen, transcripts, skipped = _measurable(model, rollouts)
    layers = list(range(model.n_layers)) if by_layer else []
    layer_probes, null_probes = _control_probes(
        model, probe, site, chosen, transcripts, layers, n_shuffles, seed, batch_tokens
    )
    probes = [probe, *layer_probes, *null_probes]
    trajectories: list[Trajectory | None] = [None] * len(chosen)
    plateaus, edges = np.empty((len(chosen), len(probes))), np.empty((len(chosen), len(probes)))
    for row, logits in score_tokens(model, probes, transcripts, batch_tokens=batch_tokens):
        trajectories[row] = Trajectory(transcripts[row], logits[0].copy())
        plateaus[row] = plateau_and_fall(logits, transcripts[row], plateau)[0]
        edges[row] = sigmoid(logits[:, transcripts[row].edge])
        advance(1)
    scored = [trajectory for trajectory in trajectories if trajectory is not None]
    outcomes = [rollout.outcome for rollout in chosen]
    rows = tuple(
        measure(
            trajectory,
            rollout.outcome,
            rollout.category,
            plateau,
            harmful=rollout.harmful,
            response=response_kind(rollout),
        )
        for trajectory, rollout in zip(scored, chosen, strict=True)
    )
    first_null = 1 + len(layer_probes)
    complied = np.array([outcome == "complied" for outcome in outcomes])
    null = (plateaus - edges)[complied, first_null:].mean(axis=0).tolist() if complied.any() else []
    return Cliff(
        model=model.name,
        layer=probe.layer if probe.layer is not None else -1,
        site=probe.site or "",
        rows=rows,
        curves=_curves(scored, outcomes, seed),
        null=tuple(null),
        by_layer=_by_layer(layers, outcomes, plateaus[:, 1:first_null], edges[:, 1:first_null], seed)
        if layer_probes
        else None,
        skipped=skipped,
        seed=seed,
    )


def mean_cliff_of(plateau: Plateau = "mean") -> Analysis:
    """The mean cliff of the complied rollouts of a world, for its nulls; 0 where there is none to measure."""

    def analysis(world: World) -> dict[str, float]:
        assert world.probe is not None, "a cliff is a probe's"
        found = measure_cliff(
            world.model,
            world.probe,
            [rollout for rollout in world.rollouts if rollout.outcome == "complied"],
            plateau=plateau,
            n_shuffles=0,
            by_layer=False,
            batch_tokens=world.batch_tokens,
        )
        return {STATISTIC: found.mean}

    return analysis


def _measurable(
    model: "HookedModel", rollouts: Sequence[Rollout]
) -> tuple[list[Rollout], list[Transcript], dict[str, int]]:
    """Rollouts that have thinking which ends, as transcripts; and how many have not, by reason."""
    chosen: list[Rollout] = []
    transcripts: list[Transcript] = []
    skipped: Counter[str] = Counter()
    for rollout, transcript in zip(rollouts, model.transcripts().build_all(rollouts), strict=True):
        if transcript.thinking_state != "closed":
            skipped[f"thinking {transcript.thinking_state}"] += 1
        elif "close" not in transcript.segments or "thinking" not in transcript.segments:
            skipped["thinking or close without a token of its own"] += 1
        else:
            chosen.append(rollout)
            transcripts.append(transcript)
    if not chosen:
        reasons = ", ".join(f"{count} with {reason}" for reason, count in skipped.items())
        raise CliffscopeError(
            f"No rollout has thinking that ends, so there is no cliff to measure ({reasons or 'the file is empty'}); "
            "generate rollouts with a reasoning model and enough --max-new-tokens."
        )
    return chosen, transcripts, dict(skipped)


def _control_probes(
    model: "HookedModel",
    probe: LinearProbe,
    site: str,
    rollouts: Sequence[Rollout],
    transcripts: Sequence[Transcript],
    layers: Sequence[int],
    n_shuffles: int,
    seed: int,
    batch_tokens: int,
) -> tuple[list[LinearProbe], list[LinearProbe]]:
    """Probes of every layer, and probes of shuffled labels at the given probe's site; none if classes are too small."""
    teaching = [row for row, rollout in enumerate(rollouts) if rollout.outcome in TEACHES]
    labels = np.array([TEACHES[rollouts[row].outcome] for row in teaching], dtype=np.int64)
    prompts = [rollouts[row].prompt for row in teaching]
    if min((labels == 0).sum(), (labels == 1).sum()) < MIN_ROLLOUTS // 2:
        return [], []
    sites = [*map(resid_post, layers), site]
    edges = model.capture([transcripts[row] for row in teaching], sites, [EDGE], batch_tokens=batch_tokens)
    for name in sites:
        check_activations(edges[name], [rollouts[row].id for row in teaching], [EDGE])
    folds = folds_by_prompt(labels, prompts, seed=seed)
    place = {"model": model.name, "fingerprint": model.fingerprint, "position": EDGE}

    def fit(site: str, labellings: NDArray[np.int64], layer: int | None) -> list[LinearProbe]:
        fits = fit_logistic(edges[site][:, 0][None], torch.as_tensor(labellings), "cv", folds=folds)
        return [
            LinearProbe(weight, float(bias)).at(**place, site=site, layer=layer)  # type: ignore[arg-type]
            for weight, bias in zip(fits.weight[0], fits.bias[0], strict=True)
        ]

    by_layer = [fit(resid_post(layer), labels[:, None], layer)[0] for layer in layers]
    if not n_shuffles:
        return by_layer, []
    rng = np.random.default_rng([seed, 2])
    shuffled = np.stack([permuted_within(folds, labels, rng) for _ in range(n_shuffles)], axis=1)
    return by_layer, fit(site, shuffled, probe.layer)


def _curves(trajectories: Sequence[Trajectory], outcomes: Sequence[str], seed: int) -> dict[str, MeanTrajectory]:
    pairs = list(zip(trajectories, outcomes, strict=True))
    groups = {name: [trajectory for trajectory, outcome in pairs if outcome == name] for name in OUTCOMES}
    return {name: average(group, seed=seed) for name, group in groups.items() if group}


def _by_layer(
    layers: Sequence[int], outcomes: Sequence[str], plateaus: np.ndarray, edges: np.ndarray, seed: int
) -> pd.DataFrame:
    """The mean cliff of every outcome under the probe of each layer, with its bootstrap 95 % interval."""
    rows = []
    for name in OUTCOMES:
        mine = np.array([outcome == name for outcome in outcomes])
        if not mine.any():
            continue
        for column, layer in enumerate(layers):
            cliffs = plateaus[mine, column] - edges[mine, column]
            interval = bootstrap_interval(cliffs, seed=seed)
            rows.append(
                {
                    "layer": layer,
                    "outcome": name,
                    "plateau": plateaus[mine, column].mean(),
                    "edge": edges[mine, column].mean(),
                    "cliff": cliffs.mean(),
                    "low": interval.low,
                    "high": interval.high,
                }
            )
    return pd.DataFrame(rows)
