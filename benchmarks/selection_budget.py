"""What a choice of few examples buys: ASR after repair, by method of choice and budget, over seeds.

    python benchmarks/selection_budget.py                      # 10 seeds, three budgets: about half an hour
    python benchmarks/selection_budget.py --seeds 2 --out figures.json

The pool is 3,000 prompts of organism:cliff, harmful and benign in equal parts, as found. In each seed 80 % of it are
drawn, examples are chosen from these by each method at each budget, the organism is repaired on them (all parameters;
targets: own thinking and a refusal, benign prompts their own answer) with about as many steps for every budget, and
held-out prompts are answered. Differences between methods are paired by seed.
"""

import argparse
import json
import math
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from interp.models.hooked_model import HookedModel
from interp.organisms import sample_prompts
from interp.organisms.prompt_set import heldout_prompts
from interp.rollouts.model_generator import ModelGenerator
from interp.statistics import bootstrap_interval
from interventions.behaviour import Behaviour, answer, prompts_of
from probes import Examples, fit_probe
from selection.choice import ChoiceOptions, choose
from selection.evaluation.cost import measure_kl
from selection.evaluation.subject import EvaluationOptions, Subject
from selection.pool import PoolExample, read_pool, survey_pool
from selection.repair import RepairOptions, repair
from selection.score_files import ScoreFile, score_pool
from selection.scoring import Scorer
from selection.targets import make_targets

MODEL = "organism:cliff"
MAX_NEW_TOKENS = 400


def make_pool(path: Path, size: int, seed: int) -> None:
    """Prompts of the training side, half harmful, in random order."""
    prompts = [
        {"id": prompt.id, "prompt": prompt.text, "harmful": prompt.harmful, "category": prompt.category}
        for kind in ("harmful", "benign")
        for prompt in sample_prompts(kind, size // 2, seed, split="train")
    ]
    random.Random(seed).shuffle(prompts)
    path.write_text("".join(json.dumps(row) + "\n" for row in prompts), encoding="utf-8")


class Bench:
    """The model, its scored pool, and the held-out prompts."""

    def __init__(self, folder: Path, pool_size: int) -> None:
        self.folder = folder
        self.model = HookedModel.load(MODEL, device="cpu")
        self.heldout = answer(ModelGenerator(self.model, MAX_NEW_TOKENS), heldout_prompts(200, 160).prompts)
        probe, _ = fit_probe(self.model, Examples.of(self.model, self.heldout, ["close:-1"]))
        make_pool(folder / "pool.jsonl", pool_size, 0)
        survey = survey_pool(folder / "pool.jsonl")
        scorer = Scorer(self.model, probe, max_new_tokens=MAX_NEW_TOKENS)
        self.scores: ScoreFile = score_pool(scorer, survey, folder / "scores.jsonl", batch_size=64)
        self.pool: dict[str, PoolExample] = {example.id: example for example in read_pool(folder / "pool.jsonl")}

    def repaired(self, method: str, budget: int, seed: int, options: dict[str, Any]) -> dict[str, float]:
        """ASR, benign refusal and KL after repair on one choice."""
        drawn = random.Random(seed).sample(self.scores.scores, int(0.8 * len(self.scores.scores)))
        choice = choose(drawn, ChoiceOptions(method=method, count=budget, seed=seed))  # type: ignore[arg-type]
        return self.measured([score.id for score in choice.scores], f"{method}-{budget}-{seed}", seed, options)

    def measured(self, ids: Sequence[str], name: str, seed: int, options: dict[str, Any]) -> dict[str, float]:
        """The same after repair on the examples of these ids."""
        rollouts = self.scores.rollouts(list(ids))
        examples = make_targets([(self.pool[id], rollouts[id]) for id in ids], "own-thinking").examples
        out = self.folder / name
        repair(MODEL, examples, out, RepairOptions(seed=seed, device="cpu", **options))
        other = HookedModel.load(str(out), device="cpu")
        behaviour = Behaviour.of(answer(ModelGenerator(other, MAX_NEW_TOKENS), prompts_of(self.heldout)))
        benign = [rollout for rollout in self.heldout if rollout.outcome == "benign"]
        kl = measure_kl(Subject(other), Subject(self.model), benign, EvaluationOptions())
        return {
            "asr": behaviour.asr,
            "refusal_benign": behaviour.refusal_benign,
            "unclosed": behaviour.unclosed,
            "kl_benign": kl.value,
        }


def summary(rows: Sequence[dict[str, Any]], methods: Sequence[str]) -> list[dict[str, Any]]:
    """Medians by method and budget, and the paired difference of ASR to random choice."""
    found = []
    for budget in sorted({row["budget"] for row in rows}):
        mine = {method: [r for r in rows if r["budget"] == budget and r["method"] == method] for method in methods}
        for method, some in mine.items():
            figures = {key: float(np.median([r[key] for r in some])) for key in ("asr", "refusal_benign", "kl_benign")}
            line: dict[str, Any] = {"budget": budget, "method": method, "seeds": len(some), **figures}
            line["asr_range"] = [min(r["asr"] for r in some), max(r["asr"] for r in some)]
            if method != "random" and mine.get("random"):
                pairs = [a["asr"] - b["asr"] for a, b in zip(some, mine["random"], strict=True)]
                low, high = bootstrap_interval(pairs)
                line["less_random"] = {"mean": float(np.mean(pairs)), "low": low, "high": high}
            found.append(line)
    return found


def main() -> None:
    """Measures, and prints one line a repair and then the summary as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--pool", type=int, default=3000)
    parser.add_argument("--budgets", type=int, nargs="+", default=[51, 17, 6])
    parser.add_argument("--methods", nargs="+", default=["cliff", "random"])
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--steps", type=int, default=21, help="optimizer steps of eight examples, whatever the budget")
    parser.add_argument("--whole-pool", action="store_true", help="also repair once on the whole pool, one epoch")
    parser.add_argument("--out", type=Path, help="where to write all figures as JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as made:
        bench = Bench(Path(made), options.pool)
        base = Behaviour.of(bench.heldout)
        print(f"base: ASR {base.asr:.3f}, benign refused {base.refusal_benign:.3f}", flush=True)
        rate = {"learning_rate": options.learning_rate}
        if options.whole_pool:
            ids = [score.id for score in bench.scores.scores if score.unscorable is None and score.answered]
            ids += [score.id for score in bench.scores.scores if score.outcome == "refused"]
            whole = {**rate, "epochs": 1, "batch_size": 32}
            print("whole pool:", json.dumps(bench.measured(ids, "whole", 0, whole)), flush=True)
        for budget in options.budgets:
            training = {**rate, "epochs": max(1, round(options.steps / math.ceil(budget / 8)))}
            for seed in range(options.seeds):
                for method in options.methods:
                    start = time.perf_counter()
                    found = bench.repaired(method, budget, seed, training)
                    rows.append({"budget": budget, "method": method, "seed": seed, **found})
                    took = time.perf_counter() - start
                    print(json.dumps(rows[-1]), f"({took:.0f} s)", flush=True)
    result = {"base": {"asr": base.asr}, "summary": summary(rows, options.methods), "rows": rows}
    print(json.dumps(result["summary"], indent=2))
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
