"""One of each result that draws itself, with little in it and nothing run."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from circuits.head_scores import HeadScores
from interp.display.shown import Drawn
from interventions.heads import Head
from interventions.masks import HeadMask
from probes.cliff import Cliff
from probes.sweep import ProbeSweep
from probes.trajectory import Trajectory
from selection.choice import ChoiceOptions, choose
from selection.evaluation import Evaluation, compare
from selection.select import Selection
from tests.circuits.test_figures import made_up
from tests.circuits.test_head_scores import of, planted
from tests.interventions.dose.test_response import made as doses
from tests.probes.test_cliff import cliff as made_cliff
from tests.probes.transcripts import transcript
from tests.selection.evaluation.material import evaluation, outcomes
from tests.selection.material import score

HOSTILE = "<script>alert(1)</script>\u202e<b>&amp;"


def trajectory(id: str = "a", n_thinking: int = 20) -> Trajectory:
    """High until the close tokens, low at the edge."""
    made = transcript(id, n_thinking)
    logits = np.where(np.arange(len(made)) < made.edge, 4.0, -3.0).astype(np.float32)
    return Trajectory(made, logits)


def cliff(model: str = "tiny") -> Cliff:
    found = made_cliff({"complied": (9, 4, -3), "refused": (9, 4, 4), "benign": (9, -4, -4)})
    rows = [(layer, outcome, 0.1 * layer) for layer in range(3) for outcome in ("complied", "refused", "benign")]
    layers = pd.DataFrame(rows, columns=["layer", "outcome", "cliff"])
    layers = layers.assign(low=layers["cliff"] - 0.1, high=layers["cliff"] + 0.1)
    return Cliff(model, 1, "blocks.1.hook_resid_post", found.rows, found.curves, by_layer=layers)


def sweep(position: str = "inst") -> ProbeSweep:
    rows = [
        {"layer": layer, "position": at, "control": control, "auroc": value + 0.1 * layer, "auroc_low": value,
         "auroc_high": 1.0, "accuracy": 0.8, "ece": 0.1, "C": 1.0, "n_train": 20, "n_test": 10}
        for layer in range(3) for at in (position, "close:-1") for control, value in (("real", 0.7), ("shuffled", 0.4))
    ]  # fmt: skip
    return ProbeSweep(pd.DataFrame(rows), {})


def heads(model: str = "tiny") -> HeadScores:
    made = of(planted())
    return HeadScores(made.table, made.method, model, made.fingerprint, made.facts)


def mask(model: str = "tiny") -> HeadMask:
    scale = torch.ones(3, 4)
    scale[1, 2], scale[2, 0] = 0.0, 0.5
    return HeadMask(scale, model=model, method="ablation")


def evaluated(label: str = "tiny") -> Evaluation:
    made = outcomes("harmful", [True] * 7 + [False] * 3) + outcomes("benign", [False] * 9 + [True])
    return evaluation(made, label)


def selection(id: str = "p") -> Selection:
    """The ten largest cliffs of sixty."""
    kinds = ("complied", "refused", "benign")
    pool = [score(f"{id}{n}", cliff=n / 60, edge=0.95 - n / 64, outcome=kinds[n % 3]) for n in range(60)]
    manifest = {"options": {"method": "cliff"}}
    return Selection(Path("s.jsonl"), (), choose(pool, ChoiceOptions(count=10)), manifest, tuple(pool))


DRAWN: dict[str, Callable[..., Drawn]] = {
    "Trajectory": trajectory,
    "Cliff": cliff,
    "ProbeSweep": sweep,
    "HeadScores": heads,
    "HeadMask": mask,
    "Selection": selection,
    "Evaluation": evaluated,
    "AblationCurve": lambda: made_up(),
    "DoseResponse": lambda: doses(),
    "Comparison": lambda: compare([evaluated("base"), evaluated("after")]),
}
"""By the name of the class; those that take an argument put it where a model, a prompt file or a user has a say."""
NAMED = ("Trajectory", "Cliff", "ProbeSweep", "HeadScores", "HeadMask", "Selection", "Evaluation")
"""Of these, which do."""

__all__ = ["DRAWN", "HOSTILE", "NAMED", "Head"]
