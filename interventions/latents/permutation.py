"""Is a latent's ranking of two classes better than that of shuffled labels: a permutation test over many latents.

The statistic is |AUROC − 1/2|. All latents are tested under the same shuffles, so that the best latent of each shuffle
is known too: what a search over as many latents finds where there is nothing.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from interp.statistics import average_ranks

_ENTRIES = 8_000_000
"""Most floats of one matrix product: what bounds the memory."""


@dataclass(frozen=True)
class Permuted:
    """What shuffled labels give.

    Attributes:
        p: `[latent]`, two-sided: (1 + shuffles with as large a |AUROC − 1/2|) / (1 + shuffles).
        best: `[shuffle]`: the AUROC of the best latent of each shuffle, on whichever side of 1/2, folded above it.
    """

    p: Float[np.ndarray, " latent"]
    best: Float[np.ndarray, " shuffle"]


def permute_labels(
    values: Float[np.ndarray, "case latent"], labels: Int[np.ndarray, " case"], *, shuffles: int = 9999, seed: int = 0
) -> Permuted:
    """Tests every latent against shuffles of the labels.

    Args:
        values: One row a case; cases must be independent, so rollouts of one prompt in one class are one case.
        labels: 0 and 1, both occurring.
        shuffles: How many.
        seed: Of the shuffles.
    """
    ranks = average_ranks(values.T).T
    centred = ranks - ranks.mean(0)
    n_positive = int(labels.sum())
    pairs = n_positive * (len(labels) - n_positive)
    observed = np.abs(labels @ centred)
    # A tie must count as one although the sums were rounded in another order.
    least = observed - 1e-9 * max(1, len(labels)) ** 2
    generator = np.random.default_rng(seed)
    reached = np.zeros(values.shape[1], dtype=np.int64)
    best: list[Float[np.ndarray, " part"]] = []
    rows = max(1, _ENTRIES // max(1, *values.shape))
    for start in range(0, shuffles, rows):
        drawn = np.tile(labels, (min(rows, shuffles - start), 1))
        found = np.abs(generator.permuted(drawn, axis=1).astype(np.float64) @ centred)
        reached += (found >= least).sum(0)
        best.append(0.5 + found.max(1, initial=0.0) / pairs)
    return Permuted((1 + reached) / (1 + shuffles), np.concatenate(best) if best else np.zeros(0))
