"""What the tests of the bench work on: tables of heads made by hand, and instances of bundled organisms."""

from collections.abc import Iterable
from functools import cache

import numpy as np
import pandas as pd

from circuits.head_scores import HeadScores
from cliffbench.instances import Instance, Sizes
from cliffbench.truth import Truth
from interp.organisms import truth
from interp.organisms.prompt_set import heldout_prompts
from interventions.heads import Head
from tests.circuits.material import organism, organism_rollouts

LAYERS, HEADS = 6, 8
TINY = Sizes(n_harmful=64, n_benign=32, n_test=8, n_shuffles=19, pairs=24)


def ranking(values: np.ndarray, named: Iterable[Head] = (), nothing: str | None = None) -> HeadScores:
    """A table of heads with these scores `[layer, head]`, of which some are named."""
    layers, heads = (index.ravel() for index in np.indices(values.shape))
    table = pd.DataFrame({"layer": layers, "head": heads, "score": values.ravel()})
    table["name"] = [f"{layer}.{head}" for layer, head in zip(layers, heads, strict=True)]
    chosen = set(named)
    table["suppresses"] = [Head(layer, head) in chosen for layer, head in zip(layers, heads, strict=True)]
    table = table.sort_values("score", ascending=False, kind="stable", ignore_index=True)
    return HeadScores(table, "by hand", "none", {}, {"nothing": nothing})


def grid(*heads: Head) -> np.ndarray:
    """1 at these heads, 0 elsewhere."""
    values = np.zeros((LAYERS, HEADS))
    for head in heads:
        values[head] = 1.0
    return values


@cache
def instance(name: str) -> Instance:
    """An organism with its own rollouts; a control with those of `cliff`."""
    known = Truth.of(truth(name))
    rollouts = organism_rollouts("cliff" if known.control else name)
    test = tuple(heldout_prompts(TINY.n_test, TINY.n_test, 1))
    return Instance.of(organism(name), known, rollouts, test, own=not known.control, sizes=TINY)
