"""The last step of `cliffscope demo`: a few training examples chosen from a pool, and the organism repaired on them."""

import random
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.cli.demo_steps import BATCH_SIZE, MAX_NEW_TOKENS, score

if TYPE_CHECKING:
    from collections.abc import Sequence

    from interp.models.hooked_model import HookedModel
    from interp.rollouts import Rollout
    from interp.rollouts.prompts import PromptSet
    from probes.linear import LinearProbe

POOL = 1000
"""Prompts of the side of the grammar that is not measured on; half of them harmful, as found."""
FRACTION = 0.017
TRAINING = {"learning_rate": 3e-4, "epochs": 10}
"""For a model of a million parameters: about twenty steps of eight examples."""
CHOICES = ("cliff", "random")
REPAIRED_ROLLOUTS = "rollouts-repaired.jsonl"
REPAIRED_SCORES = "scores-repaired.parquet"
"""Of the model repaired on the choice by cliff."""
FILES = (
    "pool.jsonl",
    "scores.jsonl",
    *(f"selected-{method}.jsonl" for method in CHOICES),
    REPAIRED_ROLLOUTS,
    REPAIRED_SCORES,
)
FOLDERS = tuple(f"repaired-{method}" for method in CHOICES)


def repair_on_few(
    name: str,
    model: "HookedModel",
    probe: "LinearProbe",
    prompts: "PromptSet",
    rollouts: "Sequence[Rollout]",
    out: Path,
    seed: int,
    summary: dict[str, Any],
) -> None:
    """Chooses by cliff and at random, repairs on each choice, and puts what came of it into the summary.

    Args:
        name: The model's name.
        model: The model.
        probe: Reads the refusal scores, also of the repaired model.
        prompts: What every model is asked.
        rollouts: The model's own answers to them.
        out: The run's folder, with the probe in it.
        seed: Of the pool, the random choice and the training.
        summary: Gets `selection`, and `repaired` figures beside the others.
    """
    clear(out)
    if summary["cliff"]["verdict"] != "cliff":
        summary["selection"] = {"pool": 0, "selected": 0, "fraction": FRACTION, "nothing": summary["cliff"]["evidence"]}
        summary["asr"] |= {"repaired": None, "repaired_random": None}
        summary["refusal_benign"]["repaired"] = summary["kl_benign"]["repaired"] = None
        return
    from interp.rollouts import write_rollouts
    from selection.select import SelectOptions, select

    _write_pool(out / "pool.jsonl", seed)
    figures: dict[str, dict[str, float]] = {}
    for method in CHOICES:
        options = SelectOptions(
            choice=_choice(method, seed),
            target="own-thinking",
            max_new_tokens=MAX_NEW_TOKENS,
            batch_size=BATCH_SIZE,
        )
        chosen = select(
            model,
            out / "probe.safetensors",
            out / "pool.jsonl",
            out / f"selected-{method}.jsonl",
            options,
            scores=out / "scores.jsonl",  # of which the model is asked once
        )
        folder = out / f"repaired-{method}"
        repaired_model, answers = _repair(name, model, chosen.path, prompts, folder, seed)
        figures[method] = _figures(repaired_model, model, answers, rollouts)
        if method == "cliff":
            write_rollouts(out / REPAIRED_ROLLOUTS, answers)
            score(repaired_model, probe, answers, out / REPAIRED_SCORES)
            counts = chosen.manifest["counts"]
            summary["selection"] = {
                "pool": counts["pool"],
                "selected": counts["selected"],
                "fraction": FRACTION,
                "outcomes": counts["selected_outcomes"],
            }
    repaired, control = figures["cliff"], figures["random"]
    summary["asr"] |= {"repaired": repaired["asr"], "repaired_random": control["asr"]}
    summary["refusal_benign"] |= {
        "repaired": repaired["refusal_benign"],
        "repaired_random": control["refusal_benign"],
    }
    summary["kl_benign"] |= {"repaired": repaired["kl"], "repaired_random": control["kl"]}


def clear(out: Path) -> None:
    """Removes what this step left in the folder in an earlier run."""
    for path in (out / file for file in FILES):
        for other in path.parent.glob(f"*{path.name}*"):
            other.unlink()
    for folder in FOLDERS:
        for path in (out / folder, out / f".{folder}.partial"):
            shutil.rmtree(path, ignore_errors=True)


def _write_pool(path: Path, seed: int) -> None:
    from interp.files import write_jsonl
    from interp.organisms import sample_prompts

    rows = [
        {"id": prompt.id, "prompt": prompt.text, "harmful": prompt.harmful, "category": prompt.category}
        for kind in ("harmful", "benign")
        for prompt in sample_prompts(kind, POOL // 2, seed, split="train")
    ]
    random.Random(seed).shuffle(rows)
    write_jsonl(path, rows)


def _choice(method: str, seed: int) -> Any:
    from selection.choice import ChoiceOptions

    return ChoiceOptions(method=method, fraction=FRACTION, seed=seed)  # type: ignore[arg-type]  # one of CHOICES


def _repair(
    name: str, model: "HookedModel", data: Path, prompts: "PromptSet", folder: Path, seed: int
) -> "tuple[HookedModel, list[Rollout]]":
    """The model repaired on a file of examples, and its answers."""
    from interp.models.hooked_model import HookedModel
    from interp.rollouts.model_generator import ModelGenerator
    from interventions.behaviour import answer
    from selection.examples import read_examples
    from selection.repair import RepairOptions, repair

    options = RepairOptions(seed=seed, device=str(model.device), **TRAINING)  # type: ignore[arg-type]
    repair(name, read_examples(data, model.chat), folder, options)
    other = HookedModel.load(str(folder), device=model.device, dtype=model.dtype)
    generator = ModelGenerator(other, MAX_NEW_TOKENS, seed=seed, batch_tokens=BATCH_SIZE * other.n_ctx)
    return other, answer(generator, prompts)


def _figures(
    repaired: "HookedModel", model: "HookedModel", answers: "Sequence[Rollout]", rollouts: "Sequence[Rollout]"
) -> dict[str, float]:
    from interventions.behaviour import Behaviour, drift

    behaviour = Behaviour.of(answers)
    benign = [rollout for rollout in rollouts if rollout.outcome == "benign"]
    return {
        "asr": behaviour.asr,
        "refusal_benign": behaviour.refusal_benign,
        "kl": float(drift(repaired, benign, [], base=model).mean()),
    }
