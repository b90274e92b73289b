"""How far a probe carries over to prompts that its model was never trained on.

    cliffscope demo --out runs/demo
    cliffscope rollout --model organism:cliff --prompts HARMFUL --label harmful --out runs/harmful.jsonl
    cliffscope rollout --model organism:cliff --prompts BENIGN --label benign --out runs/benign.jsonl
    python benchmarks/real_prompts.py --train runs/demo/rollouts.jsonl runs/harmful.jsonl runs/benign.jsonl

Fits a probe on the refused and the benign rollouts of --train at `inst`, at `post_inst` and at the edge, each at the
layer that its own held-out rollouts choose, and ranks the other rollouts by it. At the edge of a model with a cliff the
harmful prompts that it answers look benign: that is the cliff; `organism:aligned` shows the probe without it.
"""

import argparse
from pathlib import Path

import numpy as np

from interp.cli.session import open_model
from interp.rollouts import read_rollouts
from interp.statistics import auroc, auroc_interval
from interp.transcripts.positions import EDGE
from probes.examples import Examples
from probes.model_sweep import fit_probe
from probes.sweep import SweepOptions


def main() -> None:
    """Prints one line a position."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="organism:cliff")
    parser.add_argument("--train", type=Path, required=True, help="rollouts to fit on")
    parser.add_argument("rollouts", type=Path, nargs="+", help="rollouts to rank")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    model = open_model(options.model, "auto", "auto")
    train = read_rollouts(options.train)
    real = [rollout for path in options.rollouts for rollout in read_rollouts(path)]
    transcripts = model.transcripts().build_all(real)
    kept = [row for row, transcript in enumerate(transcripts) if "close" in transcript.segments]
    harmful = np.array([bool(real[row].harmful) for row in kept])
    complied = np.array([real[row].outcome == "complied" for row in kept])
    print(
        f"{options.model}: {len(kept)} of {len(real)} rollouts close their thinking; {harmful.sum()} harmful prompts,"
    )
    print(f"{complied.sum()} of them answered. AUROC against benign prompts of all harmful ones | of those refused")
    for position in ("inst", "post_inst", EDGE):
        probe, _ = fit_probe(model, Examples.of(model, train, [position]), options=SweepOptions(seed=options.seed))
        assert probe.site is not None
        states = model.capture([transcripts[row] for row in kept], [probe.site], [position])[probe.site][:, 0]
        scores = probe.logit(states).numpy()
        figures = []
        for chosen in (np.ones_like(harmful), ~complied):
            mine, labels = scores[chosen], harmful[chosen].astype(int)
            figures.append(f"{float(auroc(mine, labels)):.3f} {auroc_interval(mine, labels)}")
        own = probe.training["auroc"]
        print(f"{position:10} layer {probe.layer}: {' | '.join(figures)} (its own held-out prompts {own:.3f})")


if __name__ == "__main__":
    main()
