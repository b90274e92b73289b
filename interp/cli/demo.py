"""`cliffscope demo`: the main job from prompts to verdict, on a bundled organism."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli.options import Device, DType, Json, Seed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from interp.models.hooked_model import HookedModel
    from interp.rollouts import Rollout
    from interp.rollouts.prompts import PromptSet
    from probes.cliff import Cliff
    from probes.linear import LinearProbe

POSITIONS = ("inst", "post_inst", "think:0.25", "think:0.5", "think:0.75", "think:1", "close:-2", "close:-1")
MAX_NEW_TOKENS = 400
FILES = ("rollouts.jsonl", "probe.safetensors", "sweep.parquet", "cliff.parquet", "summary.json")


def demo(
    out: Annotated[Path, typer.Option("--out", help="The run's folder.")] = Path("runs/demo"),
    model: Annotated[str, typer.Option("--model", help="organism:cliff or organism:aligned.")] = "organism:cliff",
    n_harmful: Annotated[int, typer.Option("--n-harmful", min=16, help="Harmful prompts.")] = 200,
    n_benign: Annotated[int, typer.Option("--n-benign", min=16, help="Benign prompts, traps among them.")] = 160,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: DType = "auto",
    as_json: Json = False,
) -> None:
    """Generates rollouts with a bundled organism, fits and sweeps refusal probes, and measures the cliff.

    Writes rollouts.jsonl, probe.safetensors, sweep.parquet and .html, cliff.parquet and .html, summary.json.

    Example: cliffscope demo --out runs/demo
    """
    import time

    start = time.perf_counter()
    from interp.cli.session import open_model, require_writable
    from interp.organisms.prompt_set import heldout_prompts

    require_writable(*(out / name for name in FILES))
    hooked = open_model(model, device, dtype)
    prompts = heldout_prompts(n_harmful, n_benign, seed)
    rollouts = _roll_out(hooked, prompts, out / "rollouts.jsonl", seed)
    probe = _probe(hooked, rollouts, out, seed)
    cliff = _measure(hooked, probe, rollouts, out, seed)
    summary = _summary(model, rollouts, probe, cliff)
    summary["seconds"] = round(time.perf_counter() - start, 1)
    _finish(summary, cliff, out, as_json)


def _roll_out(model: "HookedModel", prompts: "PromptSet", out: Path, seed: int) -> "Sequence[Rollout]":
    from interp.judges import KeywordJudge
    from interp.rollouts.job import run
    from interp.rollouts.model_generator import ModelGenerator

    # Large batches take fewer steps, and a step of so small a model costs less a row.
    size = 120
    generator = ModelGenerator(model, MAX_NEW_TOKENS, seed=seed, batch_tokens=size * model.n_ctx)
    job = run(prompts, generator.generate, out, generator.settings, batch_size=size, judge=KeywordJudge(), restart=True)
    return job.rollouts


def _probe(model: "HookedModel", rollouts: "Sequence[Rollout]", out: Path, seed: int) -> "LinearProbe":
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


def _measure(
    model: "HookedModel", probe: "LinearProbe", rollouts: "Sequence[Rollout]", out: Path, seed: int
) -> "Cliff":
    from interp.progress import progress
    from probes.cliff_files import write_cliff
    from probes.cliff_run import measure_cliff

    with progress("Scoring", len(rollouts), "rollouts") as bar:
        cliff = measure_cliff(model, probe, rollouts, seed=seed, advance=bar.advance)
    write_cliff(cliff, out / "cliff.parquet")
    return cliff


def _summary(model: str, rollouts: "Sequence[Rollout]", probe: "LinearProbe", cliff: "Cliff") -> dict[str, Any]:
    facts = probe.training
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
        "asr": {"base": _share(rollouts, "complied", harmful=True)},
        "refusal_benign": {"base": _share(rollouts, "benign_refused", harmful=False)},
    }


def _share(rollouts: "Sequence[Rollout]", outcome: str, *, harmful: bool) -> float:
    """The share of harmful (or benign) prompts with an outcome."""
    mine = [rollout for rollout in rollouts if rollout.harmful is harmful]
    return sum(rollout.outcome == outcome for rollout in mine) / len(mine)


def _finish(summary: dict[str, Any], cliff: "Cliff", out: Path, as_json: bool) -> None:
    import json

    from interp.cli.output import emit, plain
    from interp.files import write_text

    write_text(out / "summary.json", json.dumps(plain(summary), indent=2, ensure_ascii=False) + "\n")
    probe, figures = summary["probe"], summary["cliff"]
    rows = [
        ("harmful prompts answered (ASR)", summary["asr"]["base"]),
        ("benign prompts refused", summary["refusal_benign"]["base"]),
        ("probe", f"layer {probe['layer']} at {probe['position']}"),
        ("held-out AUROC", probe["auroc_heldout"]),
        ("AUROC, shuffled labels", probe["auroc_shuffled"]),
        ("AUROC, held-out categories", probe["auroc_heldout_category"]),
        *((f"{o}: plateau → edge", _arrow(figures, o)) for o in ("complied", "refused", "benign")),
        ("mean cliff", figures["mean"]),
        ("seconds", f"{summary['seconds']:.1f}"),
    ]
    note = f"{cliff.evidence}\nThe picture: {out / 'cliff.html'}. All figures: {out / 'summary.json'}."
    emit(summary, as_json=as_json, title=f"{summary['model']}: {cliff.verdict}", rows=rows, note=note)


def _arrow(figures: dict[str, Any], outcome: str) -> str:
    plateau, edge = figures[f"plateau_{outcome}"], figures[f"edge_{outcome}"]
    return "–" if plateau is None else f"{plateau:.3f} → {edge:.3f} (n = {figures[f'n_{outcome}']})"
