"""What it costs to ablate every head alone: exact sweeps and the gradient against one full pass for each head.

    python benchmarks/head_sweep.py              # all of it, about 40 minutes
    python benchmarks/head_sweep.py --quick      # few and short rollouts
    python benchmarks/head_sweep.py --seven-b --device cuda --dtype bfloat16

Brute force is one pass of the Hugging Face model for each head, without its LM head, over as many rollouts at once as
fit into the same token budget. All its passes cost the same, so it times one head of each layer and is scaled to all
heads (so is the published way: one pass with logits for every token, for each head and rollout). The sweeps read the
probe's logit and the refusal logit. The ways are run in turn, and every figure is a median over runs; on a CPU it is in
CPU seconds, on one thread unless told otherwise, so that it holds on a busy machine too (`--wall` for wall time). Peak
memory is that of a process of its own, for the heads of the first layer. The model is a random Qwen2 of 46 M
parameters.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from circuits.ablation import ablation_sweep
from circuits.gradient import gradient_effects
from circuits.sweeps.readouts import Readouts
from interp.models.batching import pad, plan_batches
from interp.models.capture import BATCH_TOKENS
from interp.models.devices import parse_device, parse_dtype
from interp.models.hooked_model import HookedModel
from interp.models.sites import FINAL_NORM, Site
from interp.transcripts import Transcript
from interventions.heads import Head
from probes.linear import LinearProbe

SMALL: dict[str, int] = {
    "vocab_size": 8192, "hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 12,
    "num_attention_heads": 8, "num_key_value_heads": 4, "max_position_embeddings": 4096,
}  # fmt: skip
SEVEN_B: dict[str, int] = {
    "vocab_size": 152_064, "hidden_size": 3584, "intermediate_size": 18_944, "num_hidden_layers": 28,
    "num_attention_heads": 28, "num_key_value_heads": 4, "max_position_embeddings": 32_768,
}  # fmt: skip
WAYS = ("brute force", "published", "sweep, all", "sweep, from-edge", "gradient, all", "gradient, from-edge")


class Benchmark:
    """The model, the rollouts, and each way of ablating heads in them."""

    def __init__(self, options: argparse.Namespace) -> None:
        device, dtype = parse_device(options.device), parse_dtype(options.dtype)
        torch.manual_seed(0)
        config = transformers.Qwen2Config(**(SEVEN_B if options.seven_b else SMALL))
        with device:
            hf = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
        self.model = HookedModel(hf.eval(), name="random Qwen2")
        self.heads = [Head(layer, head) for layer in range(self.model.n_layers) for head in range(self.model.n_heads)]
        self.batch_tokens: int = options.batch_tokens
        self.clock = time.perf_counter if options.wall or device.type != "cpu" else time.process_time
        generator = torch.Generator().manual_seed(1)
        weight = torch.randn(self.model.d_model, generator=generator)
        self.probe = LinearProbe(weight, 0.0).at(site=FINAL_NORM)
        self.readouts = Readouts(self.probe, (11, 12, 13))
        self.rollouts = [
            rollout(str(number), torch.randint(0, 8000, (options.tokens,), generator=generator).tolist())
            for number in range(options.rollouts)
        ]

    def run(self, way: str, heads: Sequence[Head] | None = None) -> tuple[float, Tensor]:
        """Seconds for all heads (or the given ones), and the probe's logits `[rollout, head]`, NaN if not measured."""
        start = self.clock()
        if way in ("brute force", "published"):
            sample = [Head(layer, layer % self.model.n_heads) for layer in range(self.model.n_layers)]
            sample = list(heads) if heads is not None else sample if way == "brute force" else sample[::4]
            logits = self._brute_force(sample) if way == "brute force" else self._published(sample)
            scale = 1.0 if heads is not None else len(self.heads) / len(sample)
            return (self.clock() - start) * scale, logits
        method, scope = way.split(", ")
        options: dict[str, Any] = {"scope": scope, "batch_tokens": self.batch_tokens}
        if method == "sweep":
            effects = ablation_sweep(self.model, self.rollouts, self.readouts, heads=heads, **options)
        else:
            effects = gradient_effects(self.model, self.rollouts, self.readouts, **options)
        return self.clock() - start, effects.changed[..., 0].flatten(1)

    @torch.no_grad()
    def _brute_force(self, heads: Sequence[Head]) -> Tensor:
        """One pass of the decoder for each head."""
        ids = [transcript.input_ids for transcript in self.rollouts]
        found = torch.full((len(ids), len(self.heads)), torch.nan)
        for rows in plan_batches([len(row) for row in ids], self.batch_tokens):
            batch = pad(ids, rows, 0, "right", self.model.device).input_ids
            for head in heads:
                handle = zeroing(self.model, head)
                hidden = self.model.hf.model(input_ids=batch, use_cache=False).last_hidden_state
                handle.remove()
                found[rows, self.heads.index(head)] = self.probe.logit(hidden[:, -1]).cpu()
        return found

    @torch.no_grad()
    def _published(self, heads: Sequence[Head]) -> Tensor:
        """One pass with logits for each head and rollout."""
        found = torch.full((len(self.rollouts), len(self.heads)), torch.nan)
        for head in heads:
            handle = zeroing(self.model, head)
            for row, transcript in enumerate(self.rollouts):
                ids = torch.tensor([transcript.input_ids], device=self.model.device)
                output = self.model.hf(ids, output_hidden_states=True)
                found[row, self.heads.index(head)] = self.probe.logit(output.hidden_states[-1][0, -1]).cpu()
            handle.remove()
        return found


def rollout(name: str, ids: list[int]) -> Transcript:
    """A text whose last token is its edge."""
    labels = ("template",) * (len(ids) - 1) + ("close",)
    return Transcript(name, tuple(ids), ("",) * len(ids), labels, len(ids) - 1, "closed")


def zeroing(model: HookedModel, head: Head) -> Any:
    """A plain hook that zeroes one head at all positions."""
    columns = slice(head.head * model.d_head, (head.head + 1) * model.d_head)

    def zero(module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        z = args[0].clone()
        z[..., columns] = 0
        return (z,)

    return model.places.find(Site(head.layer, "attn.hook_z")).module.register_forward_pre_hook(zero)


def gigabytes(device: torch.device) -> float:
    """Peak memory so far: the device's if it counts its own, else the process's."""
    if device.type == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return torch.accelerator.max_memory_allocated(device) / 2**30


def peak_memory(way: str) -> dict[str, float]:
    """Of a fresh process: with the model loaded, and after ablating the heads of one layer."""
    command = [sys.executable, __file__, *sys.argv[1:], "--memory-of", way]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def measure_memory(options: argparse.Namespace) -> None:
    """What `peak_memory` runs: prints the figures of one way."""
    benchmark = Benchmark(options)
    loaded = gigabytes(benchmark.model.device)
    benchmark.run(options.memory_of, [head for head in benchmark.heads if head.layer == 0])
    print(json.dumps({"loaded": round(loaded, 2), "peak": round(gigabytes(benchmark.model.device), 2)}))


def main() -> None:
    """Measures and prints one line a figure, then all as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--rollouts", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=512, help="of each rollout")
    parser.add_argument("--batch-tokens", type=int, default=BATCH_TOKENS)
    parser.add_argument("--quick", action="store_true", help="4 rollouts of 128 tokens, 1 run")
    parser.add_argument("--seven-b", action="store_true", help="a random Qwen2 of 7 B parameters")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--wall", action="store_true", help="wall time on a CPU too")
    parser.add_argument("--memory-of", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.rollouts, options.tokens, options.runs = 4, 128, 1
    torch.set_num_threads(options.threads)
    if options.memory_of is not None:
        return measure_memory(options)
    # First: a process starts with the peak of the one that started it.
    memory = {way: peak_memory(way) for way in WAYS}
    benchmark = Benchmark(options)
    parameters = sum(parameter.numel() for parameter in benchmark.model.hf.parameters())
    print(
        f"{parameters / 1e6:.0f} M parameters, {options.rollouts} rollouts of {options.tokens} tokens, "
        f"{len(benchmark.heads)} heads, {options.device} {options.dtype}, {options.threads} threads, "
        f"torch {torch.__version__}",
        flush=True,
    )
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    logits: dict[str, Tensor] = {}
    for number in range(options.runs):
        for way in WAYS:
            taken, logits[way] = benchmark.run(way)
            seconds[way].append(taken)
            print(f"run {number + 1} of {options.runs}: {way} {taken:.2f} s", flush=True)
    found: dict[str, dict[str, float]] = {}
    for way in WAYS:
        times = [brute / taken for brute, taken in zip(seconds["brute force"], seconds[way], strict=True)]
        found[way] = {
            "seconds": round(statistics.median(seconds[way]), 2),
            "times_faster": round(statistics.median(times), 2),
            "times_min": round(min(times), 2),
            "times_max": round(max(times), 2),
            **memory[way],
        }
        print(f"{way:20} {json.dumps(found[way])}", flush=True)
    measured = ~logits["brute force"].isnan()
    exact, swept = logits["brute force"][measured], logits["sweep, all"][measured]
    found["sweep, all"] |= {"spread": float(exact.std()), "difference": float((exact - swept).abs().max())}
    print(
        f"the probe's logit by brute force and by the sweep differs by {found['sweep, all']['difference']:.1e} at most"
    )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
