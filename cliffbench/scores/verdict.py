"""Cliff or no cliff: the shipped verdict, and the naive reading of the mean curve, against the truth.

The naive reading fits a probe in the thinking, where the model knows what is harmful, reads it along the rollouts, and
calls a drop of the mean curve at the edge a cliff: no control and no interval. (A probe fitted at the edge cannot be
fooled in that way: what shifts every edge shifts its threshold.) The shipped verdict is asked with that probe too, and
with a mean-difference probe at the edge.
"""

from cliffbench.instances import Instance
from interp.transcripts.positions import EDGE
from probes.cliff import MIN_CLIFF, OUTCOMES, Cliff
from probes.cliff_run import measure_cliff
from probes.examples import Examples
from probes.linear import Method
from probes.model_sweep import fit_probe

THINKING = "think:0.5"
"""Where the probe of the naive reading is fitted."""
NAIVE, SHIPPED, SHIPPED_THINKING = "raw drop", "shipped verdict", "shipped verdict, probe of the thinking"
SHIPPED_DIFFERENCE = "shipped verdict, mean-difference probe"
"""The readings."""


def score_verdicts(instance: Instance) -> dict[str, dict[str, float]]:
    """By the way of reading: `says_cliff`, and `verdict_right` where the truth is known."""
    thinking = cliff_with(instance, THINKING, "logistic")
    readings = {
        SHIPPED: instance.cliff.verdict == "cliff",
        SHIPPED_DIFFERENCE: cliff_with(instance, EDGE, "mean-difference").verdict == "cliff",
        SHIPPED_THINKING: thinking.verdict == "cliff",
        NAIVE: naive_verdict(thinking) == "cliff",
    }
    truth = instance.truth.has_cliff
    return {
        name: {"says_cliff": float(says)} | ({} if truth is None else {"verdict_right": float(says == truth)})
        for name, says in readings.items()
    }


def cliff_with(instance: Instance, position: str, method: Method) -> Cliff:
    """The cliff under a probe that was fitted at another position or by another method."""
    model, sizes = instance.model, instance.sizes
    # At the edge the layer is chosen already, and in the same way for every method.
    layer = instance.probe.layer if position == EDGE else None
    examples = Examples.of(model, instance.rollouts, [position])
    probe, _ = fit_probe(model, examples, layer="auto" if layer is None else layer, method=method)
    return measure_cliff(
        model, probe, instance.rollouts, n_shuffles=sizes.n_shuffles, by_layer=False, seed=instance.seed
    )


def naive_verdict(cliff: Cliff) -> str:
    """`cliff` where the mean curve of harmful prompts falls by more than `MIN_CLIFF`: no control, no interval.

    Read on the complied rollouts, and where there are none on the refused ones.
    """
    for outcome in OUTCOMES[:2]:
        falls = cliff.of(outcome, "cliff")
        if len(falls):
            return "cliff" if float(falls.mean()) > MIN_CLIFF else "no cliff"
    return "no cliff"
