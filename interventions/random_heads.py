"""Random sets of heads, the control of every claim about chosen ones: as many in every layer as were chosen there."""

from collections.abc import Sequence

import numpy as np

from interp.errors import CliffscopeError
from interventions.heads import Head, Sizes, check_heads


def random_sets(model: Sizes, heads: Sequence[tuple[int, int]], n: int, seed: int = 0) -> list[tuple[Head, ...]]:
    """`n` sets of as many heads as given, matched by layer, none of them a given one.

    Where a layer has too few others, the missing ones come from the layers that have some.

    Args:
        model: Its sizes.
        heads: The chosen heads.
        n: Number of sets; they may repeat where few are possible.
        seed: Of the draws.

    Raises:
        CliffscopeError: If more than half of the model's heads are chosen, so that there are not enough others.
    """
    chosen = set(check_heads(heads, model))
    if 2 * len(chosen) > model.n_layers * model.n_heads:
        raise CliffscopeError(
            f"random heads: {len(chosen)} of {model.n_layers * model.n_heads} heads are chosen, and there are not as "
            "many others to compare with; choose at most half."
        )
    rng = np.random.default_rng(seed)
    return [_random_set(model, chosen, rng) for _ in range(n)]


def _random_set(model: Sizes, chosen: set[Head], rng: np.random.Generator) -> tuple[Head, ...]:
    drawn: list[Head] = []
    spare: list[Head] = []
    for layer in range(model.n_layers):
        others = [Head(layer, head) for head in range(model.n_heads) if Head(layer, head) not in chosen]
        order = [others[place] for place in rng.permutation(len(others))]
        wanted = sum(head.layer == layer for head in chosen)
        drawn += order[:wanted]
        spare += order[wanted:]
    missing = len(chosen) - len(drawn)
    drawn += [spare[place] for place in rng.permutation(len(spare))[:missing]]
    return tuple(sorted(drawn))
