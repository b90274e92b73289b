"""Three ways from two samples of activations to a vector, in float64 on the CPU.

    mean difference    μ₊ − μ₋
    discriminant       Σ⁻¹(μ₊ − μ₋): the leading linear discriminant (Fisher 1936), Σ the pooled covariance within the
                       classes, shrunk towards a multiple of the identity, (1 − s)S + s·(tr S / d)·I, with s given or
                       as Ledoit and Wolf 2004 estimate it
    paired PCA         the first principal component of differences of pairs, positive minus negative

The principal component is that of the differences *about zero*: about their own mean the mean difference, which is
what they have in common, would be taken out. It is the same as centring after adding each difference with its sign
turned, which is how Zou et al. 2023 (arXiv 2310.01405) shuffle theirs.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import CliffscopeError

Shrinkage = float | Literal["auto"]


def mean_difference(
    positive: Float[Tensor, "n d_model"], negative: Float[Tensor, "m d_model"]
) -> Float[Tensor, "d_model"]:
    """The difference of the class means.

    Raises:
        CliffscopeError: If both classes have the same mean.
    """
    difference = positive.double().mean(0) - negative.double().mean(0)
    if not float(difference.norm()):
        raise CliffscopeError("activations: both classes have the same mean; there is no direction between them.")
    return difference


def discriminant(
    positive: Float[Tensor, "n d_model"], negative: Float[Tensor, "m d_model"], shrinkage: Shrinkage = "auto"
) -> tuple[Float[Tensor, "d_model"], float]:
    """The leading linear discriminant, and the shrinkage used.

    The d × d covariance is never formed: what it does is known from the singular vectors of the centred sample.

    Args:
        positive: Activations of class 1.
        negative: Of class 0.
        shrinkage: In [0, 1], or `auto` for the estimate of Ledoit and Wolf.

    Raises:
        CliffscopeError: If both classes have the same mean, the shrinkage is no share, or it is 0 and the samples are
            too few to invert their covariance.
    """
    difference = mean_difference(positive, negative)
    parts = (positive.double(), negative.double())
    centred = torch.cat([part - part.mean(0) for part in parts])
    n, d = centred.shape
    if shrinkage == "auto":
        shrinkage = ledoit_wolf_shrinkage(centred)
    elif not 0 <= shrinkage <= 1:
        raise CliffscopeError(f"shrinkage: expected a share from 0 to 1, or auto, found {shrinkage}.")
    _, singular, rows = torch.linalg.svd(centred, full_matrices=False)
    variances = singular.square() / n
    ridge = shrinkage * float(variances.sum()) / d
    within = (1 - shrinkage) * variances + ridge
    if ridge == 0 and (len(singular) < d or float(within.min()) <= 1e-12 * float(within.max())):
        raise CliffscopeError(
            f"activations: {n} rollouts do not determine a covariance of width {d} without shrinkage; give one above "
            "0, or take the mean difference."
        )
    inside = rows @ difference
    solved = rows.T @ (inside / within)
    if ridge:
        solved = solved + (difference - rows.T @ inside) / ridge
    return solved, float(shrinkage)


def ledoit_wolf_shrinkage(centred: Float[Tensor, "n d"]) -> float:
    """The shrinkage of Ledoit and Wolf 2004 for rows whose mean is zero, from their Gram matrix alone."""
    n, d = centred.shape
    gram = centred @ centred.T if n < d else centred.T @ centred
    trace, squared = float(gram.trace()) / n, float(gram.square().sum()) / n**2
    # d · distance² of the sample covariance from the target, and of the sample covariance from the true one.
    apart = squared - trace**2 / d
    noise = (float(centred.square().sum(1).square().sum()) / n - squared) / n
    return min(1.0, max(0.0, noise / apart)) if apart > 0 else 0.0


def paired_component(
    positive: Float[Tensor, "n d_model"], negative: Float[Tensor, "m d_model"], pairs: Sequence[tuple[int, int]]
) -> Float[Tensor, "d_model"]:
    """The first principal component, about zero, of positive minus negative over pairs of rows.

    Raises:
        CliffscopeError: If there are fewer than two pairs, or one names a row that there is not.
    """
    if len(pairs) < 2:
        raise CliffscopeError(f"pairs: a principal component needs at least 2, found {len(pairs)}.")
    first, second = (torch.tensor(side) for side in zip(*pairs, strict=True))
    for name, index, n in (("positive", first, len(positive)), ("negative", second, len(negative))):
        if int(index.min()) < 0 or int(index.max()) >= n:
            raise CliffscopeError(
                f"pairs: {name} rows are 0 to {n - 1}, found {int(index.min())} to {int(index.max())}."
            )
    differences = positive.double()[first] - negative.double()[second]
    return torch.linalg.svd(differences, full_matrices=False)[2][0]


def random_pairs(n: int, m: int, seed: int) -> list[tuple[int, int]]:
    """Each row of the larger class with a random one of the other, whose rows are used equally often, or one more."""
    generator = torch.Generator().manual_seed(seed)
    total = max(n, m)
    sides = []
    for size in (n, m):
        drawn = [torch.randperm(size, generator=generator) for _ in range(-(-total // size))]
        sides.append(torch.cat(drawn)[:total].tolist())
    return list(zip(*sides, strict=True))
