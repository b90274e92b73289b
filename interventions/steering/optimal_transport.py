"""Optimal transport between two Gaussians, in closed form, and what of it must be estimated from samples.

1. Principal components of both samples together, centred on their common mean: the k directions of a subspace.
2. Means and covariances of both samples there; each covariance is drawn towards the pooled one (below).
3. The linear part of the cheapest map (in squared distance) that takes N(μ_s, Σ_s) to N(μ_t, Σ_t):
   A = Σ_s^{-1/2}(Σ_s^{1/2} Σ_t Σ_s^{1/2})^{1/2} Σ_s^{-1/2}, the only symmetric positive definite A with AΣ_sA = Σ_t.

Steps 1 and 3 as in arXiv 2603.04355. Exact if the two are Gaussian; else it is the cheapest map with a
symmetric positive definite linear part, and moves the mean and the covariance all the same. All in float64 on the CPU.

*Departure: shrinkage.* A sample covariance in k dimensions is singular below k + 1 samples and ill-conditioned long
before the samples are many times k, and the inverse root of one blows up directions of no variance. Each is therefore
replaced by (1 − ρ)Σ + ρΣ_pooled, where Σ_pooled is the mean covariance within the two samples. At ρ = 1 the covariances
are equal and the map is a mere shift by the means' difference, so ρ leads from one method to the other. By default
ρ = k/(k + n): each sample counts its own n activations and k activations' worth of the pooled ones.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import CliffscopeError

_SINGULAR = 1e-10
"""Smallest eigenvalue of a covariance, as a share of the largest, that is told from rounding."""

Shrinkage = float | str


def optimal_map(source: Float[Tensor, "k k"], target: Float[Tensor, "k k"]) -> Float[Tensor, "k k"]:
    """The symmetric positive definite A with A·source·A = target.

    Args:
        source: A covariance, symmetric and positive definite.
        target: Another.

    Raises:
        CliffscopeError: If one of them is singular or is no covariance.
    """
    root, inverse = _roots("source", source)
    _roots("target", target)
    middle = _power(_symmetric(root @ target.double() @ root), 0.5)
    return _symmetric(inverse @ middle @ inverse)


def distance(shift: Float[Tensor, " k"], source: Float[Tensor, "k k"], target: Float[Tensor, "k k"]) -> float:
    """The Wasserstein distance of two Gaussians: the root mean square distance that the cheapest map moves a point."""
    matrix = optimal_map(source, target)
    moved = matrix - torch.eye(len(matrix), dtype=torch.float64)
    return float((shift.double().square().sum() + (moved @ source.double() @ moved).trace()).clamp(min=0).sqrt())


def principal_components(
    samples: Float[Tensor, "n d_model"], components: int
) -> tuple[Float[Tensor, "k d_model"], float]:
    """The leading principal components, as orthonormal rows, and the share of the variance that they hold.

    Signs are fixed (the largest entry of each is positive), so that equal samples give equal components.

    Raises:
        CliffscopeError: If the samples do not vary in so many directions.
    """
    centred = samples.double() - samples.double().mean(0)
    _, lengths, rows = torch.linalg.svd(centred, full_matrices=False)
    variance = lengths.square()
    rank = int((variance > _SINGULAR * variance[0].clamp(min=1e-300)).sum())
    if not 1 <= components <= rank:
        raise CliffscopeError(
            f"components: expected 1 to {rank}, in which these {len(samples)} activations of width {samples.shape[1]} "
            f"vary, found {components}."
        )
    rows = rows[:components]
    largest = rows.gather(1, rows.abs().argmax(1, keepdim=True))
    return rows * largest.sign(), float(variance[:components].sum() / variance.sum())


def shrunk_covariances(
    source: Float[Tensor, "n k"], target: Float[Tensor, "m k"], shrinkage: Shrinkage
) -> tuple[Float[Tensor, "k k"], Float[Tensor, "k k"], tuple[float, float]]:
    """The covariances of two samples, each drawn towards the pooled one, and the two shares ρ of the pooled one.

    Args:
        source: A sample in k dimensions.
        target: Another.
        shrinkage: ρ, from 0 to 1, or `auto`: k/(k + n) of each sample.

    Raises:
        CliffscopeError: If the shrinkage is none of these.
    """
    if shrinkage != "auto" and (isinstance(shrinkage, str) or not 0 <= shrinkage <= 1):
        raise CliffscopeError(f"shrinkage: expected auto, or a number from 0 to 1, found {shrinkage}.")
    sizes, k = (len(source), len(target)), source.shape[1]
    own = [torch.cov(rows.double().T).reshape(k, k) for rows in (source, target)]
    pooled = sum((n - 1) * covariance for n, covariance in zip(sizes, own, strict=True)) / (sum(sizes) - 2)
    shares = tuple(k / (k + n) if shrinkage == "auto" else float(shrinkage) for n in sizes)
    shrunk = [(1 - share) * covariance + share * pooled for share, covariance in zip(shares, own, strict=True)]
    return shrunk[0], shrunk[1], (shares[0], shares[1])


def _roots(name: str, covariance: Float[Tensor, "k k"]) -> tuple[Float[Tensor, "k k"], Float[Tensor, "k k"]]:
    """The symmetric root of a covariance and its inverse."""
    whole = covariance.double()
    if whole.ndim != 2 or whole.shape[0] != whole.shape[1] or not bool(torch.isfinite(whole).all()):
        raise CliffscopeError(f"transport: expected a finite {name} covariance [k, k], found {list(whole.shape)}.")
    if not torch.allclose(whole, whole.T, rtol=1e-6, atol=1e-9 * float(whole.abs().max())):
        raise CliffscopeError(f"transport: the {name} covariance is not symmetric.")
    values = torch.linalg.eigvalsh(_symmetric(whole))
    if float(values[0]) <= _SINGULAR * float(values[-1]):
        raise CliffscopeError(
            f"transport: the {name} covariance is singular in these {len(values)} dimensions (eigenvalues "
            f"{float(values[0]):.2g} to {float(values[-1]):.2g}); take fewer components, more activations, or "
            "shrinkage above 0."
        )
    return _power(whole, 0.5), _power(whole, -0.5)


def _power(matrix: Float[Tensor, "k k"], exponent: float) -> Float[Tensor, "k k"]:
    values, vectors = torch.linalg.eigh(_symmetric(matrix))
    return (vectors * values.clamp(min=0).pow(exponent)) @ vectors.T


def _symmetric(matrix: Float[Tensor, "k k"]) -> Float[Tensor, "k k"]:
    return (matrix + matrix.T) / 2
