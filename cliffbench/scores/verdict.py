"""Cliff or no cliff: the shipped verdict, and the naive reading of the mean curve, against the truth."""

from collections.abc import Sequence

from cliffbench.instances import Instance
from probes.cliff import MIN_CLIFF, Cliff


def score_verdicts(instance: Instance) -> dict[str, dict[str, float]]:
    """By the way of reading: `says_cliff`, and `verdict_right` where the truth is known."""
    readings = {
        "shipped verdict": instance.cliff.verdict == "cliff",
        "raw drop": naive_verdict(instance.cliff) == "cliff",
    }
    truth = instance.truth.has_cliff
    return {
        name: {"says_cliff": float(says)} | ({} if truth is None else {"verdict_right": float(says == truth)})
        for name, says in readings.items()
    }


def naive_verdict(cliff: Cliff, outcomes: Sequence[str] = ("complied", "refused")) -> str:
    """`cliff` where the mean curve of harmful prompts falls by more than `MIN_CLIFF`: no control, no interval.

    Read on the complied rollouts, and where there are none on the refused ones.
    """
    for outcome in outcomes:
        falls = cliff.of(outcome, "cliff")
        if len(falls):
            return "cliff" if float(falls.mean()) > MIN_CLIFF else "no cliff"
    return "no cliff"
