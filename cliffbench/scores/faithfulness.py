"""How much of the behaviour the best heads carry: CPR and CMD of MIB (Mueller et al. 2025, arXiv 2504.13151).

For a circuit C of the k best heads, every head outside C has the value of the counterpart rollout (a refused one) at
the edge of a complied one; m is how far the model is from refusing (minus the refusal logit), N the whole model:

    f(C) = (m(C) − m(∅)) / (m(N) − m(∅)),    CPR = ∫ f,    CMD = ∫ |1 − f|

over the share of heads in C from 0 to 1, by the trapezoid rule. Departures from MIB: circuits are made of heads at the
edge and not of edges of the graph, which is what a head mask can use; and m is averaged over pairs before the ratio. A
CPR near 1 and a CMD near 0 say that few heads carry it all; f may exceed 1 where heads outside C work against it.
"""

from collections.abc import Sequence

import numpy as np

from circuits.exchange import Exchange
from circuits.head_scores import HeadScores
from cliffbench.instances import AT_ONCE, Instance
from interventions.heads import Head
from interventions.pairs import choose_pairs

N_PAIRS = 40
COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
"""Sizes of the circuits, besides none and all."""


def score_faithfulness(instance: Instance, scores: HeadScores) -> dict[str, float]:
    """`cpr` and `cmd` of the ranking, and `faithfulness` of the named heads alone; not in controls."""
    if instance.truth.control or scores.facts["nothing"] is not None:
        return {}
    total = len(scores.table)
    ranked = [
        Head(int(layer), int(head)) for layer, head in zip(scores.table["layer"], scores.table["head"], strict=True)
    ]
    counts = [0, *(count for count in COUNTS if count < total), total]
    values = faithfulness(instance, [*(ranked[:count] for count in counts), scores.suppressors])
    share = np.array(counts) / total
    return {**areas(share, values[:-1]), "faithfulness": float(values[-1])}


def areas(share: np.ndarray, f: np.ndarray) -> dict[str, float]:
    """`cpr` and `cmd` of a curve over the share of components, from 0 to 1."""
    return {"cpr": float(np.trapezoid(f, share)), "cmd": float(np.trapezoid(np.abs(1 - f), share))}


def faithfulness(instance: Instance, circuits: Sequence[Sequence[Head]]) -> np.ndarray:
    """How faithful each circuit is: f, as above."""
    cases = instance.cases
    if "exchange" not in instance.memo:
        pairs = choose_pairs(cases.refused, cases.complied, n=N_PAIRS, seed=instance.seed)
        recipients, donors = [pair.complied for pair in pairs], [pair.refused for pair in pairs]
        instance.memo["exchange"] = Exchange(instance.model, recipients, donors, batch_tokens=AT_ONCE)
    exchange: Exchange = instance.memo["exchange"]
    every = [Head(layer, head) for layer in range(exchange.model.n_layers) for head in range(exchange.model.n_heads)]
    outside = [[head for head in every if head not in set(circuit)] for circuit in circuits]
    m = -exchange.of(every, [], *outside).double().mean(1).numpy()
    none, whole = m[0], m[1]
    return (m[2:] - none) / (whole - none)
