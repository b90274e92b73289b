"""What reading costs over the bare forward pass: capture, trajectory scoring, and the published way of scoring.

    python benchmarks/forward_cost.py            # all of it, about ten minutes on two cores
    python benchmarks/forward_cost.py --quick    # fewer and shorter rollouts

The bare forward is the Hugging Face model without its LM head over the same batches. Every figure is the median of
paired runs: the two ways in turn, their ratio pair by pair. The model is a random Qwen2 of 46 M parameters.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
import transformers

from interp.models.batching import pad, plan_batches
from interp.models.capture import BATCH_TOKENS
from interp.models.hooked_model import HookedModel
from interp.models.sites import FINAL_NORM, resid_post
from interp.transcripts import Transcript
from probes.linear import LinearProbe
from probes.trajectory import score_tokens

N_LAYERS, D_MODEL = 12, 512


def random_qwen2(vocabulary: int) -> HookedModel:
    """A random Qwen2; 46 M parameters with a vocabulary of 8,192."""
    torch.manual_seed(0)
    config = transformers.Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=D_MODEL,
        intermediate_size=1536,
        num_hidden_layers=N_LAYERS,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=4096,
    )
    return HookedModel(transformers.AutoModelForCausalLM.from_config(config).eval(), name="random Qwen2")


def texts(lengths: Sequence[int]) -> list[Transcript]:
    """Random transcripts of these lengths."""
    generator = torch.Generator().manual_seed(1)
    rows = [torch.randint(0, 8000, (length,), generator=generator).tolist() for length in lengths]
    return [Transcript.from_ids(str(number), row) for number, row in enumerate(rows)]


def bare(model: HookedModel, transcripts: Sequence[Transcript]) -> Callable[[], None]:
    """The bare forward over the batches that Cliffscope would make."""
    ids = [transcript.input_ids for transcript in transcripts]
    plan = plan_batches([len(row) for row in ids], BATCH_TOKENS)
    batches = [pad(ids, rows, 0, "right", model.device).input_ids for rows in plan]

    @torch.no_grad()
    def run() -> None:
        for batch in batches:
            model.hf.model(input_ids=batch, use_cache=False)

    return run


def probe(site: str) -> LinearProbe:
    """Any probe will do: the cost does not depend on its values."""
    return LinearProbe(torch.randn(D_MODEL, generator=torch.Generator().manual_seed(2)), 0.0).at(site=site)


def score(model: HookedModel, transcripts: Sequence[Transcript], site: str) -> None:
    """Trajectories as Cliffscope scores them."""
    for _ in score_tokens(model, [probe(site)], transcripts):
        pass


@torch.no_grad()
def published(model: HookedModel, transcripts: Sequence[Transcript]) -> None:
    """One rollout at a time, all hidden states kept, logits for every token (Yin et al. 2025's procedure)."""
    fitted = probe(FINAL_NORM)
    for transcript in transcripts:
        output = model.hf(torch.tensor([transcript.input_ids]), output_hidden_states=True)
        fitted.score(output.hidden_states[-1][0])


def paired(ours: Callable[[], Any], reference: Callable[[], Any], runs: int) -> dict[str, float]:
    """Median seconds of both, and the median of their ratios pair by pair, after one warm-up of each."""
    ours()
    reference()
    pairs = []
    for number in range(runs):
        order = (ours, reference) if number % 2 == 0 else (reference, ours)
        seconds = {}
        for run in order:
            start = time.perf_counter()
            run()
            seconds[run] = time.perf_counter() - start
        pairs.append((seconds[ours], seconds[reference]))
    return {
        "seconds": round(statistics.median(a for a, _ in pairs), 3),
        "bare_seconds": round(statistics.median(b for _, b in pairs), 3),
        "ratio": round(statistics.median(a / b for a, b in pairs), 3),
        "ratio_min": round(min(a / b for a, b in pairs), 3),
        "ratio_max": round(max(a / b for a, b in pairs), 3),
    }


def main() -> None:
    """Measures and prints one line a figure, then all as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5, help="pairs of runs for each figure")
    parser.add_argument("--rollouts", type=int, default=256)
    parser.add_argument("--quick", action="store_true", help="32 rollouts, 3 pairs, no large vocabulary")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    if options.quick:
        options.runs, options.rollouts = 3, 32
    torch.set_num_threads(options.threads)
    model = random_qwen2(8192)
    parameters = sum(parameter.numel() for parameter in model.hf.parameters())
    print(f"{parameters / 1e6:.1f} M parameters, {options.threads} threads, torch {torch.__version__}")
    found: dict[str, dict[str, float]] = {}

    def measure(name: str, ours: Callable[[], Any], reference: Callable[[], Any], runs: int) -> None:
        found[name] = paired(ours, reference, runs)
        print(f"{name:60} {json.dumps(found[name])}", flush=True)

    sites = [resid_post(layer) for layer in range(N_LAYERS)]
    for count, length in ((8, 256), (1, 2048)):
        some = texts([length] * count)
        name = f"capture, all layers, last 8 positions, {count} x {length}"
        runs = 3 * options.runs
        measure(name, lambda some=some: model.capture(some, sites, range(-8, 0)), bare(model, some), runs)
    lengths = torch.randint(30, 601, (options.rollouts,), generator=torch.Generator().manual_seed(3)).tolist()
    many = texts(lengths)
    print(f"trajectories: {len(many)} rollouts, {sum(lengths)} tokens")
    for name, site in (("last layer", resid_post(N_LAYERS - 1)), ("layer 6 of 12", resid_post(5))):
        measure(f"trajectories, {name}", lambda site=site: score(model, many, site), bare(model, many), options.runs)
    reference = bare(model, many)
    measure("published way, vocabulary 8,192", lambda: published(model, many), reference, max(1, options.runs // 2))
    if not options.quick:
        large = random_qwen2(150_000)
        reference = bare(large, many)
        measure("published way, vocabulary 150,000", lambda: published(large, many), reference, 1)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
