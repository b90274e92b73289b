"""The ranking of heads and the heads that are named, against the planted ones."""

from collections.abc import Collection

import numpy as np
from jaxtyping import Bool, Float

from circuits.head_scores import HeadScores
from cliffbench.instances import Instance
from interp.statistics import auroc
from interventions.heads import Head


def score_heads(instance: Instance, scores: HeadScores) -> dict[str, float]:
    """`head_figures` where heads were planted; in a control, whether any head is named, which is a false claim.

    Where there is a mechanism that is not made of planted heads there is no answer, and no score.
    """
    if instance.truth.control:
        return {"named": float(len(scores.suppressors)), "false_claim": float(bool(scores.suppressors))}
    if not instance.truth.heads:
        return {"named": float(len(scores.suppressors))}
    return head_figures(scores, instance.truth.heads)


def head_figures(scores: HeadScores, planted: Collection[Head]) -> dict[str, float]:
    """How well a table of heads tells the planted ones from the others.

    Args:
        scores: Of all heads. A head without a score ranks last; heads that score alike share their places.
        planted: The right answer, at least one head.

    Returns:
        `auroc` of the scores; `precision_at_n`, the planted share of as many best heads as were planted; `precision`
        and `recall` of the named heads (nothing named: 0 and 0, for something was there); `named`; `false_discoveries`.
    """
    grid = scores.grid()
    values = np.where(np.isnan(grid), -np.inf, grid)
    truth = np.zeros(grid.shape, dtype=bool)
    for head in planted:
        truth[head] = True
    named = set(scores.suppressors)
    right = len(named & set(planted))
    return {
        "auroc": float(auroc(_places(values.ravel()), truth.ravel())),
        "precision_at_n": precision_at(values.ravel(), truth.ravel()),
        "precision": right / len(named) if named else 0.0,
        "recall": right / len(planted),
        "named": float(len(named)),
        "false_discoveries": float(len(named) - right),
    }


def precision_at(values: Float[np.ndarray, " head"], truth: Bool[np.ndarray, " head"]) -> float:
    """The expected share of true heads among the best `truth.sum()`, ties being broken at random."""
    n = int(truth.sum())
    least = np.sort(values)[-n]
    above, level = values > least, values == least
    return float((truth[above].sum() + (n - above.sum()) * truth[level].mean()) / n)


def _places(values: Float[np.ndarray, " head"]) -> Float[np.ndarray, " head"]:
    """Finite numbers in the same order: the AUROC takes no infinity for a score."""
    return np.unique(values, return_inverse=True)[1].astype(np.float64)
