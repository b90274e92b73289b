"""The step of `cliffscope demo` that steers: the prompts answered again with the refusal direction added."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.cli.demo_steps import BATCH_SIZE, MAX_NEW_TOKENS, remove, score

if TYPE_CHECKING:
    from collections.abc import Sequence

    from interp.models.hooked_model import HookedModel
    from interp.rollouts import Rollout
    from interp.rollouts.prompts import PromptSet
    from probes.linear import LinearProbe

DOSE = 1.0
"""In class distances: as far as the mean of refused rollouts lies from that of complied ones."""
DIRECTION = "direction.safetensors"
STEERED_ROLLOUTS = "rollouts-steered.jsonl"
STEERED_SCORES = "scores-steered.parquet"
FILES = (DIRECTION, STEERED_ROLLOUTS, STEERED_SCORES)


def steer(
    model: "HookedModel",
    probe: "LinearProbe",
    prompts: "PromptSet",
    rollouts: "Sequence[Rollout]",
    out: Path,
    seed: int,
    summary: dict[str, Any],
) -> None:
    """Adds the refusal direction of the middle layer at all tokens, and a random one of equal norm as its control.

    The direction is the difference of means at the edge between refused and complied rollouts. The middle layer is a
    rule, not a choice by effect; `cliffscope steer choose` makes that choice. Below the layer at which the probe reads
    the scores move by what the later layers make of the step, not by the step itself alone.
    """
    if summary["cliff"]["verdict"] != "cliff" or not summary["cliff"]["n_refused"]:
        summary["asr"] |= {"steered": None, "steered_random": None}
        summary["refusal_benign"]["steered"] = summary["kl_benign"]["steered"] = None
        remove(out, *FILES)
        return
    from interp.rollouts import write_rollouts
    from interp.rollouts.model_generator import ModelGenerator
    from interventions.behaviour import Behaviour, answer, drift
    from interventions.directions import fit_directions
    from interventions.steering.along_direction import AddDirection

    layer = model.n_layers // 2
    direction = fit_directions(model, rollouts, layers=[layer], seed=seed)[layer]
    direction.save(out / DIRECTION)
    step = AddDirection(direction, DOSE)
    generator = ModelGenerator(model, MAX_NEW_TOKENS, seed=seed, batch_tokens=BATCH_SIZE * model.n_ctx)
    steered = answer(generator, prompts, [step])
    write_rollouts(out / STEERED_ROLLOUTS, steered)
    score(model, probe, steered, out / STEERED_SCORES, [step])
    harmful = [prompt for prompt in prompts if prompt.harmful]
    control = Behaviour.of(answer(generator, harmful, [AddDirection(direction.random_like(seed), DOSE)]))
    after = Behaviour.of(steered)
    summary["steering"] = {
        "layer": layer,
        "site": direction.site,
        "dose": DOSE,
        "contrast": direction.training["contrast"],
        "auroc_heldout": direction.training["auroc"],
    }
    summary["asr"] |= {"steered": after.asr, "steered_random": control.asr}
    summary["refusal_benign"]["steered"] = after.refusal_benign
    benign = [rollout for rollout in rollouts if rollout.outcome == "benign"]
    summary["kl_benign"]["steered"] = float(drift(model, benign, [step]).mean())
