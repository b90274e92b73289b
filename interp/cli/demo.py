"""`cliffscope demo`: the main job from prompts to verdict, on a bundled organism."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli.demo_repair import FILES as REPAIR_FILES
from interp.cli.demo_repair import FOLDERS
from interp.cli.demo_steer import FILES as STEER_FILES
from interp.cli.demo_steps import CURVE_TABLE, MASK, MASKED_ROLLOUTS, MASKED_SCORES, SCORES, SEARCHES
from interp.cli.options import Device, DType, Json, Seed
from interp.manifest import NAME as MANIFEST

if TYPE_CHECKING:
    from probes.cliff import Cliff

FILES = (
    "rollouts.jsonl",
    "probe.safetensors",
    "sweep.parquet",
    "cliff.parquet",
    SCORES,
    *(f"heads-{method}.parquet" for method in SEARCHES),
    CURVE_TABLE,
    MASK,
    MASKED_ROLLOUTS,
    MASKED_SCORES,
    *STEER_FILES,
    *REPAIR_FILES,
    "summary.json",
    MANIFEST,
)
REPORT = "report.html"


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
    """Measures the cliff of a bundled organism, finds the heads that cause it, masks them, and repairs the model.

    Generates rollouts, fits and sweeps refusal probes, measures the cliff, ranks the heads by three methods, builds a
    mask, and answers the prompts again with it and with random masks of the same size, and steered along the refusal
    direction. Then chooses 1.7 % of a pool of training examples by cliff, and as many at random, and repairs the model
    on each. Writes rollouts.jsonl, probe.safetensors, sweep.parquet, cliff.parquet, scores.parquet (every token),
    heads-METHOD.parquet, curve.parquet, mask.safetensors, direction.safetensors, pool.jsonl, selected-METHOD.jsonl,
    repaired-METHOD, the answers and scores after each change, summary.json, run.json (what was run, with hashes),
    pages (.html) beside the tables, and report.html, which shows all of it.

    Example: cliffscope demo --out runs/demo
    """
    import json
    import time
    from datetime import UTC, datetime

    start, started = time.perf_counter(), datetime.now(UTC)
    from interp.cli import demo_steps as steps
    from interp.cli.demo_repair import repair_on_few
    from interp.cli.demo_steer import steer
    from interp.cli.output import plain
    from interp.cli.session import open_model, require_writable
    from interp.files import write_text
    from interp.manifest import command_line, write_manifest
    from interp.organisms.prompt_set import heldout_prompts
    from report.page import write_report

    require_writable(*(out / name for name in (*FILES, REPORT)))
    hooked = open_model(model, device, dtype)
    steps.remove(out, MANIFEST, REPORT)  # which say that a run was finished
    prompts = heldout_prompts(n_harmful, n_benign, seed)
    rollouts = steps.roll_out(hooked, prompts, out / "rollouts.jsonl", seed)
    probe = steps.fit(hooked, rollouts, out, seed)
    cliff = steps.measure(hooked, probe, rollouts, out, seed)
    summary = steps.summarize(model, rollouts, probe, cliff)
    cases = steps.cases_of(hooked, probe, rollouts, seed)
    rankings = steps.rank(hooked, probe, cases, out, seed)
    summary["heads"] = steps.found_heads(model, rankings)
    steps.trace(hooked, probe, cases, rankings["ablation"], out, seed)
    steps.apply_mask(hooked, probe, rankings["ablation"], prompts, rollouts, out, seed, summary)
    steer(hooked, probe, prompts, rollouts, out, seed, summary)
    repair_on_few(model, hooked, probe, prompts, rollouts, out, seed, summary)
    summary["seconds"] = round(time.perf_counter() - start, 1)
    write_text(out / "summary.json", json.dumps(plain(summary), indent=2, ensure_ascii=False) + "\n")
    options = {"out": out, "model": model, "n_harmful": n_harmful, "n_benign": n_benign, "seed": seed}
    write_manifest(
        out,
        command=command_line("demo", options | {"device": device, "dtype": dtype}),
        started=started,
        seconds=summary["seconds"],
        model=hooked,
        seed=seed,
        files=_left(out),
    )
    write_report(out, out / REPORT)
    _tell(summary, cliff, out, as_json)


def _left(out: Path) -> list[Path]:
    """What the run left in the folder: its files with what stands beside them (settings, pages), and its models."""
    beside = {path for name in FILES for path in out.glob(f"{Path(name).stem}.*")}
    return [*beside, *(out / folder for folder in FOLDERS if (out / folder).is_dir())]


def _tell(summary: dict[str, Any], cliff: "Cliff", out: Path, as_json: bool) -> None:
    from interp.cli.output import emit

    probe, figures, heads = summary["probe"], summary["cliff"], summary["heads"]
    asr, refusal, selection = summary["asr"], summary["refusal_benign"], summary["selection"]
    rows = [
        ("harmful prompts answered (ASR)", asr["base"]),
        ("benign prompts refused", refusal["base"]),
        ("probe", f"layer {probe['layer']} at {probe['position']}"),
        ("held-out AUROC", probe["auroc_heldout"]),
        ("AUROC, shuffled labels", probe["auroc_shuffled"]),
        ("AUROC, held-out categories", probe["auroc_heldout_category"]),
        *((f"{o}: plateau → edge", _arrow(figures, o)) for o in ("complied", "refused", "benign")),
        ("mean cliff", figures["mean"]),
        ("suppression heads", ", ".join(heads["top"]) or "none"),
        ("planted heads", ", ".join(heads["planted"]) or "none"),
        ("ASR with the mask", asr["masked"]),
        ("ASR with random masks", asr["random_mask"]),
        ("benign refused with the mask", refusal["masked"]),
        ("drift on benign answers", summary["kl_benign"]["masked"]),
        ("ASR steered", asr["steered"]),
        ("ASR, random direction of equal norm", asr["steered_random"]),
        ("benign refused, steered", refusal["steered"]),
        ("drift on benign answers, steered", summary["kl_benign"]["steered"]),
        ("examples chosen by cliff", f"{selection['selected']} of {selection['pool']:,}"),
        ("ASR, repaired on these", asr["repaired"]),
        ("ASR, repaired on as many at random", asr["repaired_random"]),
        ("benign refused, repaired", refusal["repaired"]),
        ("drift on benign answers, repaired", summary["kl_benign"]["repaired"]),
        ("seconds", f"{summary['seconds']:.1f}"),
    ]
    files = f"Open {out / REPORT}. All figures: {out / 'summary.json'}; what was run: {out / MANIFEST}."
    note = f"{files}\n{cliff.evidence}\n{heads['evidence']}"
    emit(summary, as_json=as_json, title=f"{summary['model']}: {cliff.verdict}", rows=rows, note=note)


def _arrow(figures: dict[str, Any], outcome: str) -> str:
    plateau, edge = figures[f"plateau_{outcome}"], figures[f"edge_{outcome}"]
    return "–" if plateau is None else f"{plateau:.3f} → {edge:.3f} (n = {figures[f'n_{outcome}']})"
