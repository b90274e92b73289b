"""The steps of `cliffscope demo` up to the mask: rollouts, probe, cliff, heads, curve."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from circuits.cases import Cases
    from circuits.head_scores import HeadScores, Method
    from interp.models.hooked_model import HookedModel
    from interp.models.hooks import Intervention
    from interp.rollouts import Rollout
    from interp.rollouts.prompts import PromptSet
    from probes.cliff import Cliff
    from probes.linear import LinearProbe

POSITIONS = ("inst", "post_inst", "think:0.25", "think:0.5", "think:0.75", "think:1", "close:-2", "close:-1")
MAX_NEW_TOKENS = 400
BATCH_SIZE = 120
"""Prompts at once: large batches take fewer steps, and a step of so small a model costs less a row."""
SEARCHES: tuple["Method", ...] = ("attribution", "ablation", "interchange")
MASK_FRACTION = 0.05
"""Most heads in the mask, as a share of all."""
N_RANDOM_MASKS = 3
CURVE = {"counts": (1, 2, 4, 8), "n_random": 4, "n_random_answered": 0, "n_prompts": 24, "n_rollouts": 32}
"""A coarse curve: what random masks do to the answers is measured with the mask."""
CURVE_TABLE = "curve.parquet"
SCORES = "scores.parquet"
MASK = "mask.safetensors"
MASKED_ROLLOUTS = "rollouts-masked.jsonl"
MASKED_SCORES = "scores-masked.parquet"


def roll_out(model: "HookedModel", prompts: "PromptSet", out: Path, seed: int) -> "Sequence[Rollout]":
    """The model's own judged answers."""
    from interp.judges import KeywordJudge
    from interp.rollouts.job import run
    from interp.rollouts.model_generator import ModelGenerator

    generator = ModelGenerator(model, MAX_NEW_TOKENS, seed=seed, batch_tokens=BATCH_SIZE * model.n_ctx)
    job = run(
        prompts, generator.generate, out, generator.settings, batch_size=BATCH_SIZE, judge=KeywordJudge(), restart=True
    )
    return job.rollouts


def fit(model: "HookedModel", rollouts: "Sequence[Rollout]", out: Path, seed: int) -> "LinearProbe":
    """Sweeps all layers and positions, and saves the probe at the edge of the layer that the sweep chooses."""
    from interp.progress import progress
    from interp.transcripts.positions import EDGE
    from probes.examples import Examples
    from probes.model_sweep import probe_of, sweep_model
    from probes.sweep import SweepOptions
    from probes.sweep_figure import write_sweep_html

    examples = Examples.of(model, rollouts, POSITIONS)
    with progress("Sweeping", model.n_layers, "layers") as bar:
        sweep = sweep_model(model, examples, range(model.n_layers), SweepOptions(seed=seed), advance=bar.advance)
    sweep.to_parquet(out / "sweep.parquet")
    write_sweep_html(sweep.table, out / "sweep.html")
    probe = probe_of(model, sweep, sweep.choose_layer(EDGE), EDGE)
    probe.save(out / "probe.safetensors")
    return probe


def measure(model: "HookedModel", probe: "LinearProbe", rollouts: "Sequence[Rollout]", out: Path, seed: int) -> "Cliff":
    """The cliff, with its files."""
    from interp.progress import progress
    from probes.cliff_files import write_cliff
    from probes.cliff_run import measure_cliff

    with progress("Scoring", len(rollouts), "rollouts") as bar:
        cliff = measure_cliff(model, probe, rollouts, seed=seed, advance=bar.advance)
    write_cliff(cliff, out / "cliff.parquet")
    score(model, probe, rollouts, out / SCORES)
    return cliff


def score(
    model: "HookedModel",
    probe: "LinearProbe",
    rollouts: "Sequence[Rollout]",
    out: Path,
    changes: "Sequence[Intervention]" = (),
) -> None:
    """Writes the refusal score at every token of the rollouts, read with the changes under which they were made.

    A repaired model is read by the same probe: it has the architecture and sizes that the probe was made for, and
    another probe's scores could not be set beside these. But training moves activations, so the score at which it
    refuses may be another one: compare where its scores rise and fall, not their level.
    """
    from probes.scores import score_table, write_scores

    with model.intervene(*changes):
        table = score_table(model, probe, rollouts)
    write_scores(table, out)


def remove(out: Path, *names: str) -> None:
    """Removes files that an earlier run left in the folder and this one does not make."""
    for name in names:
        (out / name).unlink(missing_ok=True)


def summarize(model: str, rollouts: "Sequence[Rollout]", probe: "LinearProbe", cliff: "Cliff") -> dict[str, Any]:
    """The figures so far."""
    from interventions.behaviour import Behaviour

    facts, behaviour = probe.training, Behaviour.of(rollouts)
    return {
        "model": model,
        "probe": {
            "layer": probe.layer,
            "position": probe.position,
            "auroc_heldout": facts["auroc"],
            "auroc_heldout_ci95": [facts["auroc_low"], facts["auroc_high"]],
            "auroc_shuffled": facts["auroc_shuffled"],
            "auroc_heldout_category": facts.get("auroc_held_out_category"),
        },
        "cliff": cliff.summary(),
        "asr": {"base": behaviour.asr},
        "refusal_benign": {"base": behaviour.refusal_benign},
    }


def cases_of(model: "HookedModel", probe: "LinearProbe", rollouts: "Sequence[Rollout]", seed: int) -> "Cases":
    """The rollouts of which the searches ask why."""
    from circuits.cases import Cases

    return Cases.of(model, probe, rollouts, seed=seed)


def rank(model: "HookedModel", probe: "LinearProbe", cases: "Cases", out: Path, seed: int) -> "dict[str, HeadScores]":
    """The heads by each method."""
    from circuits.head_files import write_heads
    from circuits.rank import RankOptions, n_steps, rank_heads
    from interp.progress import progress

    rankings: dict[str, HeadScores] = {}
    for method in SEARCHES:
        options = RankOptions(method=method, seed=seed)
        with progress(f"Heads by {method}", n_steps(cases, options), "steps") as bar:
            rankings[method] = rank_heads(model, probe, cases, options, bar.advance)
        write_heads(rankings[method], out / f"heads-{method}.parquet")
    return rankings


def trace(
    model: "HookedModel", probe: "LinearProbe", cases: "Cases", scores: "HeadScores", out: Path, seed: int
) -> None:
    """The curve of heads ablated, best first, where there is something to explain."""
    if cases.nothing is not None:
        remove(out, CURVE_TABLE, Path(CURVE_TABLE).with_suffix(".html").name)
        return
    from circuits.curve import CurveOptions, ablation_curve, n_sets
    from circuits.head_files import write_curve
    from interp.progress import progress

    options = CurveOptions(
        **CURVE,  # type: ignore[arg-type]  # one dict of several types
        max_new_tokens=MAX_NEW_TOKENS,
        seed=seed,
        batch_tokens=BATCH_SIZE * model.n_ctx,
    )
    ranked = scores.top(max(options.counts))
    with progress("Ablating", n_sets(options), "sets of heads") as bar:
        curve = ablation_curve(model, probe, cases, ranked, options, bar.advance)
    write_curve(curve, out / CURVE_TABLE)


def found_heads(model: str, rankings: "dict[str, HeadScores]") -> dict[str, Any]:
    """What was found, beside what was planted."""
    from interp.models.loading import ORGANISM
    from interp.organisms import truth

    main = rankings["ablation"]
    planted = truth(model.removeprefix(ORGANISM)).get("heads", [])
    ranks = {
        method: [int(scores.table.set_index("name").loc[name, "rank"]) for name in planted]
        for method, scores in rankings.items()
        if scores.facts["nothing"] is None
    }
    return {
        "n_heads": len(main.table),
        "top": [str(head) for head in main.suppressors],
        "planted": planted,
        "planted_ranks": ranks.get("ablation", []),
        "planted_ranks_by_method": ranks,
        "suppressors_by_method": {method: [str(h) for h in s.suppressors] for method, s in rankings.items()},
        "nothing": main.facts["nothing"],
        "evidence": main.evidence,
    }


def apply_mask(
    model: "HookedModel",
    probe: "LinearProbe",
    scores: "HeadScores",
    prompts: "PromptSet",
    rollouts: "Sequence[Rollout]",
    out: Path,
    seed: int,
    summary: dict[str, Any],
) -> None:
    """Builds the mask, and puts into the summary what it does, and what random masks of the same size do."""
    if not scores.suppressors:
        summary["asr"] |= {"masked": None, "random_mask": None}
        summary["refusal_benign"]["masked"] = None
        summary["kl_benign"] = {"masked": None}
        remove(out, MASK, MASKED_ROLLOUTS, MASKED_SCORES)
        return
    from circuits.mask import build_mask
    from interp.rollouts import write_rollouts
    from interp.rollouts.model_generator import ModelGenerator
    from interventions.behaviour import Behaviour, answer, drift
    from interventions.head_ablation import ScaleHeads
    from interventions.random_heads import random_sets

    chosen = scores.suppressors[: max(1, int(MASK_FRACTION * len(scores.table)))]
    mask = build_mask(model, scores, chosen)
    mask.save(out / MASK)
    generator = ModelGenerator(model, MAX_NEW_TOKENS, seed=seed, batch_tokens=BATCH_SIZE * model.n_ctx)
    masked = answer(generator, prompts, [mask])
    write_rollouts(out / MASKED_ROLLOUTS, masked)
    score(model, probe, masked, out / MASKED_SCORES, [mask])
    harmful = [prompt for prompt in prompts if prompt.harmful]
    controls = [
        Behaviour.of(answer(generator, harmful, [ScaleHeads(heads)])).asr
        for heads in random_sets(model, chosen, N_RANDOM_MASKS, seed)
    ]
    after = Behaviour.of(masked)
    summary["heads"]["mask"] = [str(head) for head in chosen]
    summary["asr"] |= {"masked": after.asr, "random_mask": sum(controls) / len(controls), "random_masks": controls}
    summary["refusal_benign"]["masked"] = after.refusal_benign
    benign = [rollout for rollout in rollouts if rollout.outcome == "benign"]
    summary["kl_benign"] = {"masked": float(drift(model, benign, [mask]).mean())}
