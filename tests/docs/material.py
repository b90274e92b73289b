"""The files that every page starts from, of `organism:cliff`: made once, copied for each page."""

import csv
import json
import shutil
from dataclasses import asdict
from functools import cache
from pathlib import Path

from circuits import Cases, RankOptions, build_mask, rank_heads
from circuits.head_files import write_heads
from interp import HookedModel, ModelGenerator, Rollout
from interp.judges import KeywordJudge, judged
from interp.organisms.prompt_set import heldout_prompts
from interp.rollouts import write_rollouts
from interp.rollouts.prompts import Prompt
from interventions.directions.fitting import fit_directions
from probes import Examples, LinearProbe

LAYER = 4


@cache
def organism() -> HookedModel:
    return HookedModel.load("organism:cliff", device="cpu")


@cache
def prompts() -> tuple[Prompt, ...]:
    return tuple(heldout_prompts(40, 16, 0))


@cache
def rollouts() -> tuple[Rollout, ...]:
    """Judged answers to the prompts; these only name a harm."""
    model = organism()
    generator = ModelGenerator(model, 400, seed=0, batch_tokens=len(prompts()) * model.n_ctx)
    return tuple(judged(generator.generate(list(prompts())), KeywordJudge()))


def write_starter(folder: Path) -> None:
    """Prompts of each kind, a pool, rollouts, and what the first commands make of them."""
    harmful = [prompt for prompt in prompts() if prompt.harmful]
    benign = [prompt for prompt in prompts() if not prompt.harmful]
    _write_csv(folder / "harmful.csv", harmful, labels=False)
    _write_csv(folder / "benign.csv", benign, labels=False)
    _write_csv(folder / "prompts.csv", [*harmful[:6], *benign[:6]], labels=True)
    _write_csv(folder / "labelled.csv", list(heldout_prompts(48, 84, 1)), labels=True)
    pool = [{"prompt": prompt.text, "harmful": prompt.harmful} for prompt in heldout_prompts(24, 6, 2)]
    (folder / "pool.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in pool), encoding="utf-8")
    model = organism()
    write_rollouts(folder / "rollouts.jsonl", rollouts())
    examples = Examples.of(model, list(rollouts()), ["close:-1"])
    activations = examples.activations(model, [LAYER], 8192)[0, :, 0]
    site = f"blocks.{LAYER}.hook_resid_post"
    probe = LinearProbe.fit(activations, examples.labels, prompts=examples.prompts).at(
        model=model.name, fingerprint=model.fingerprint, layer=LAYER, site=site, position="close:-1"
    )
    probe.save(folder / "probe.safetensors")
    heads = rank_heads(model, probe, Cases.of(model, probe, rollouts()), RankOptions(method="ablation"))
    write_heads(heads, folder / "heads.parquet")
    build_mask(model, heads).save(folder / "mask.safetensors")
    fit_directions(model, list(rollouts()), kind="refusal", layers=[2])[2].save(folder / "vector.safetensors")
    run = folder / "runs" / "demo"
    run.mkdir(parents=True)
    for name in ("rollouts.jsonl", "probe.safetensors", "heads.parquet", "mask.safetensors"):
        shutil.copy(folder / name, run / name)


def _write_csv(path: Path, rows: list[Prompt], labels: bool) -> None:
    columns = ["prompt", "harmful", "category"] if labels else ["prompt", "category"]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows({"prompt": row.text, **asdict(row)} for row in rows)
