"""Scores: what a method said, against the truth.

Each is a function `(instance, head scores) → {score: value}`; where a score has no meaning for an instance it is left
out. `HEAD_SCORES` names those that are asked of every method.
"""

from collections.abc import Callable, Mapping

from circuits.head_scores import HeadScores
from cliffbench.instances import Instance
from cliffbench.scores.edges import score_edges
from cliffbench.scores.faithfulness import score_faithfulness
from cliffbench.scores.heads import score_heads
from cliffbench.scores.masks import score_mask
from cliffbench.scores.sparsity import score_sparsity

Score = Callable[[Instance, HeadScores], Mapping[str, float]]

HEAD_SCORES: dict[str, Score] = {
    "heads": score_heads,
    "sparsity": score_sparsity,
    "edges": score_edges,
    "mask": score_mask,
    "faithfulness": score_faithfulness,
}
"""By the group's name."""
