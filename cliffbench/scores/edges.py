"""The edges gate → amplifier that the cascades of the named heads show, against the planted ones."""

from circuits.cascade import cascade
from circuits.head_scores import HeadScores
from cliffbench.instances import Instance
from interventions.heads import Head

MOST = 8
"""Named heads that are knocked out, best first."""


def score_edges(instance: Instance, scores: HeadScores) -> dict[str, float]:
    """`edge_recall` and `edge_precision`, where edges were planted.

    The cascade of a head, which then writes its mean in refused rollouts, reports every head behind it whose
    contribution falls; an edge is found if its gate is named and the gate's cascade reports its amplifier.
    """
    if not instance.truth.edges:
        return {}
    found = {(head, amplifier) for head in scores.suppressors[:MOST] for amplifier in _amplifiers(instance, head)}
    right = len(found & set(instance.truth.edges))
    return {
        "edge_recall": right / len(instance.truth.edges),
        "edge_precision": right / len(found) if found else 0.0,
    }


def _amplifiers(instance: Instance, head: Head) -> tuple[Head, ...]:
    key = ("cascade", head)
    if key not in instance.memo:
        found = cascade(instance.model, instance.probe, instance.cases, head, instead="refused", seed=instance.seed)
        instance.memo[key] = found.amplifiers
    amplifiers: tuple[Head, ...] = instance.memo[key]
    return amplifiers
