"""The probe sweep against the loop over scikit-learn that it replaces.

Both do the same fits on the same splits: for every layer and position the real labels, the shuffled ones and
the held-out categories, each with the penalty strength cross-validated (`SweepOptions()`), at 28 layers x 32
positions, n = 512, d = 2048 unless told otherwise. The activations are synthetic: a power-law spectrum, as
residual streams have, with the classes apart along one direction, more so in deeper layers.

Scikit-learn would need hours, so a random sample of its fits is timed and the mean is scaled to their number;
the sweep is timed on whole layers and the median is scaled to 28. The sweep's time includes its bootstraps and
tables, scikit-learn's only the standardization and the fits. Scikit-learn is timed at its default tolerance
(1e-4, its weights are then off by the percentage printed) and at one that reaches the sweep's exactness. Both
run on one thread and CPU seconds are compared, so that the figures hold on a busy machine too; either would share
its work over two cores (cells are independent). `--wall` compares wall time, the sweep on all cores and
scikit-learn as one worker a core, scaling perfectly.

    python benchmarks/probe_sweep.py                 # a few minutes on 2 cores
    python benchmarks/probe_sweep.py --C 0.1         # one strength, no cross-validation
"""

import argparse
import os
import statistics
import time
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from probes.fitting import C_GRID
from probes.sweep import SweepOptions, SweepPlan

Clock = Callable[[], float]
Fit = tuple[int, int, int | None, float]  # training set, labelling, fold left out (None: none), C


def activations_of(layer: int, args: argparse.Namespace, labels: np.ndarray) -> torch.Tensor:
    """[rollout, position, d_model] float32 of a made-up layer."""
    generator = torch.Generator().manual_seed(layer)
    n, d, rank = args.n, args.d, min(args.d, 300)
    sign = torch.as_tensor(2.0 * labels - 1)
    block = torch.empty(n, args.positions, d)
    scale = 10 / torch.arange(1, rank + 1)
    for position in range(args.positions):
        basis = torch.randn(rank, d, generator=generator) / d**0.5
        direction = torch.randn(d, generator=generator) / d**0.5
        block[:, position] = (torch.randn(n, rank, generator=generator) * scale) @ basis
        block[:, position] += 0.3 * torch.randn(n, d, generator=generator) / d**0.5
        block[:, position] += sign[:, None] * direction * (layer + 1) / args.layers
    return block


def fits_of_a_cell(plan: SweepPlan) -> list[Fit]:
    """Every fit that one layer and position needs."""
    fits: list[Fit] = []
    for index, training in enumerate([plan.main, *plan.categories]):
        for labelling in range(training.labels.shape[1]):
            if plan.options.C == "cv":
                folds = range(training.folds.max() + 1)
                fits += [(index, labelling, fold, C) for fold in folds for C in C_GRID]
                fits.append((index, labelling, None, 0.0))  # the final fit, at the strength chosen
            else:
                fits.append((index, labelling, None, float(plan.options.C)))
    return fits


def time_scikit_learn(
    plan: SweepPlan, block: torch.Tensor, sample: list[Fit], tol: float, rng: np.random.Generator, clock: Clock
) -> Iterator[tuple[float, np.ndarray]]:
    """Seconds and weights of each sampled fit, each at a random position."""
    sets = [plan.main, *plan.categories]
    for index, labelling, fold, C in sample:
        training = sets[index]
        h = block[training.split.train, int(rng.integers(block.shape[1]))].double().numpy()
        y = training.labels[:, labelling]
        features = StandardScaler().fit_transform(h)  # once for each training set in the real loop: not timed
        kept = training.folds != fold if fold is not None else np.ones(len(y), dtype=bool)
        features, y = features[kept], y[kept]
        strength = C or float(rng.choice(C_GRID))
        model = LogisticRegression(C=strength, class_weight="balanced", tol=tol, max_iter=100_000)
        start = clock()
        with threadpool_limits(1):
            model.fit(features, y)
        yield clock() - start, model.coef_[0]


def main() -> None:
    """Times both and prints the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--positions", type=int, default=32)
    parser.add_argument("--n", type=int, default=512)
    parser.add_argument("--d", type=int, default=2048)
    parser.add_argument("--C", type=float, default=None, help="one strength instead of cross-validation")
    parser.add_argument("--measured-layers", type=int, default=3, help="layers that the sweep is timed on")
    parser.add_argument("--sample", type=int, default=80, help="fits that scikit-learn is timed on")
    parser.add_argument("--wall", action="store_true", help="wall time on all cores; needs an idle machine")
    args = parser.parse_args()
    clock = time.perf_counter if args.wall else time.process_time
    cores = os.cpu_count() or 1 if args.wall else 1
    torch.set_num_threads(cores)
    unit = "of wall time" if args.wall else "of CPU time"

    labels = np.arange(args.n) % 2
    prompts = [f"prompt {i}" for i in range(args.n)]
    categories = [f"kind {i // 2 % 12}" for i in range(args.n)]
    positions = [f"position {i}" for i in range(args.positions)]
    options = SweepOptions(C="cv" if args.C is None else args.C)
    plan = SweepPlan.make(labels, prompts, positions, categories, options=options)
    fits = fits_of_a_cell(plan)
    cells = args.layers * args.positions
    print(
        f"{args.layers} layers x {args.positions} positions, n={args.n}, d={args.d}: {len(fits)} fits a cell, "
        f"{len(fits) * cells:,} in all; {os.cpu_count()} cores, torch threads {torch.get_num_threads()}, "
        f"load {os.getloadavg()[0]:.1f}"
    )

    depths = np.linspace(0, args.layers - 1, args.measured_layers).round().astype(int).tolist()
    seconds = []
    for layer in depths:
        block = activations_of(layer, args, labels)
        start = clock()
        plan.fit_layer(layer, block)
        seconds.append(clock() - start)
    ours = statistics.median(seconds) * args.layers
    each = statistics.median(seconds) / (args.positions * len(fits))
    print(
        f"sweep:        {', '.join(f'{s:.1f}' for s in seconds)} s for layers {depths}; median x {args.layers} = "
        f"{ours:,.0f} s {unit}, {1e3 * each:.2f} ms a fit"
    )

    warnings.simplefilter("ignore")
    rng = np.random.default_rng(0)
    chosen = [fits[i] for i in rng.choice(len(fits), min(args.sample, len(fits) * len(depths)), replace=True)]
    weights: dict[float, list[np.ndarray]] = {}
    for tol in (1e-4, 1e-8):
        times = []
        for part, layer in enumerate(depths):
            block = activations_of(layer, args, labels)
            mine = chosen[part :: len(depths)]
            for elapsed, weight in time_scikit_learn(plan, block, mine, tol, np.random.default_rng(part), clock):
                times.append(elapsed)
                weights.setdefault(tol, []).append(weight)
        total = statistics.mean(times) * len(fits) * cells / cores
        print(
            f"scikit-learn, tol {tol:g}: {len(times)} fits timed, mean {1e3 * statistics.mean(times):.1f} ms, "
            f"median {1e3 * statistics.median(times):.1f} ms; scaled to all: {total:,.0f} s {unit} = "
            f"{total / ours:.0f} x the sweep (by the median fit {statistics.median(times) / cores / each:.0f} x)"
        )
    errors = [np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(weights[1e-4], weights[1e-8], strict=True)]
    print(f"scikit-learn's default weights are off by {100 * max(errors):.2g} % at most; load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
