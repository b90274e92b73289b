"""A head mask out of head scores, with its provenance."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from circuits.head_scores import HeadScores
from circuits.rank import examples_of
from interventions.heads import Head
from interventions.masks import HeadMask

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel

_KEPT = ("site", "scope", "gamma", "seed", "n", "to_explain", "positions", "steps")


def build_mask(
    model: "HookedModel",
    scores: HeadScores,
    heads: Sequence[Head] | None = None,
    *,
    gamma: float = 0.0,
    renormalize: bool = False,
) -> HeadMask:
    """A mask of ranked heads, which knows how they were found and what it does to the ranking's rollouts.

    Args:
        model: The model whose heads were ranked.
        scores: The ranking.
        heads: Those to mask; all suppression heads if `None`. See `HeadScores.choose`.
        gamma: What their outputs are multiplied by.
        renormalize: See `HeadMask`.

    Raises:
        CliffscopeError: If the scores are another model's, there is no suppression head, or as `HeadMask.build`.
    """
    scores.check_model(model.fingerprint, model.name)
    chosen = scores.choose() if heads is None else heads
    rows = scores.table.set_index("name").loc[[str(head) for head in chosen]]
    facts = {
        "scores": {name: float(score) for name, score in rows["score"].items()},
        "suppresses": [str(name) for name, named in rows["suppresses"].items() if named],
        "threshold": float(rows["score"].min()),
        "ranking": {name: scores.facts[name] for name in _KEPT if name in scores.facts},
    }
    return HeadMask.build(
        model,
        chosen,
        gamma=gamma,
        renormalize=renormalize,
        method=scores.method,
        facts=facts,
        sequences=examples_of(scores),
    )
