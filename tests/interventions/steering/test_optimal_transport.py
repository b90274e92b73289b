"""The closed form against scipy's matrix root, by hand where it can be had by hand, and against dearer maps."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from torch import Tensor

from interp.errors import CliffscopeError
from interventions.steering.optimal_transport import (
    distance,
    optimal_map,
    principal_components,
    shrunk_covariances,
)
from interventions.steering.transport import GaussianMap

F64 = torch.float64


def covariance(k: int, seed: int, floor: float = 0.05) -> Tensor:
    drawn = torch.randn(k, 2 * k, generator=torch.Generator().manual_seed(seed), dtype=F64)
    return drawn @ drawn.T / k + floor * torch.eye(k, dtype=F64)


def vector(k: int, seed: int) -> Tensor:
    return torch.randn(k, generator=torch.Generator().manual_seed(1000 + seed), dtype=F64)


def by_scipy(source: Tensor, target: Tensor) -> np.ndarray:
    """Another form of the same map: Σ_t^{1/2} (Σ_t^{1/2} Σ_s Σ_t^{1/2})^{-1/2} Σ_t^{1/2}."""
    root = sqrtm(target.numpy())
    return np.real(root @ np.linalg.inv(sqrtm(root @ source.numpy() @ root)) @ root)


@settings(max_examples=30, deadline=None)
@given(k=st.integers(1, 24), seed=st.integers(0, 10_000))
def test_the_closed_form(k: int, seed: int) -> None:
    source, target, x = covariance(k, seed), covariance(k, seed + 1), vector(k, seed)[None] * 3
    means = vector(k, seed + 2), vector(k, seed + 3)
    made = GaussianMap.between(means[0], source, means[1], target)
    reference = by_scipy(source, target)
    np.testing.assert_allclose(made.matrix.numpy(), reference, rtol=0, atol=1e-8)
    expected = means[1].numpy() + (x.numpy() - means[0].numpy()) @ reference
    assert made(x).dtype == F64
    np.testing.assert_allclose(made(x).numpy(), expected, rtol=0, atol=1e-8)
    torch.testing.assert_close(made.matrix @ source @ made.matrix, target, atol=1e-8, rtol=0)
    assert torch.equal(made.matrix, made.matrix.T) and torch.linalg.eigvalsh(made.matrix)[0] > 0
    torch.testing.assert_close(made.inverse().matrix, optimal_map(target, source), atol=1e-8, rtol=0)
    torch.testing.assert_close(made.inverse()(made(x)), x, atol=1e-8, rtol=0)


def test_one_dimension_stretches_by_the_ratio_of_the_deviations() -> None:
    made = GaussianMap.between(torch.tensor([1.0]), torch.tensor([[4.0]]), torch.tensor([-2.0]), torch.tensor([[25.0]]))
    assert made.matrix.item() == pytest.approx(5 / 2, abs=1e-12)
    torch.testing.assert_close(made(torch.tensor([[3.0], [1.0]], dtype=F64)), torch.tensor([[3.0], [-2.0]], dtype=F64))


def test_covariances_that_share_their_axes_are_stretched_along_them() -> None:
    axes = torch.linalg.qr(covariance(4, 0)).Q
    variances = torch.tensor([1.0, 4.0, 9.0, 0.25], dtype=F64), torch.tensor([4.0, 4.0, 1.0, 16.0], dtype=F64)
    source, target = (axes * variance @ axes.T for variance in variances)
    expected = axes * torch.tensor([2.0, 1.0, 1 / 3, 8.0], dtype=F64) @ axes.T
    torch.testing.assert_close(optimal_map(source, target), expected, atol=1e-10, rtol=0)


def test_equal_covariances_are_a_shift_and_equal_classes_nothing() -> None:
    sigma, means, x = covariance(6, 3), (vector(6, 1), vector(6, 2)), vector(6, 4)[None]
    made = GaussianMap.between(means[0], sigma, means[1], sigma)
    torch.testing.assert_close(made(x), x + means[1] - means[0], atol=1e-10, rtol=0)
    torch.testing.assert_close(GaussianMap.between(means[0], sigma, means[0], sigma)(x), x, atol=1e-10, rtol=0)
    assert distance(means[1] - means[0], sigma, sigma) == pytest.approx(float((means[1] - means[0]).norm()), rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_no_other_map_of_the_same_moments_is_cheaper(seed: int) -> None:
    """All linear maps of the same moments are Σ_t^{1/2} Q Σ_s^{-1/2} with Q orthogonal, Cholesky's among them."""
    k = 7
    source, target = covariance(k, seed), covariance(k, 50 + seed)
    best = optimal_map(source, target)
    root, inverse = (
        torch.tensor(np.real(sqrtm(target.numpy()))),
        torch.tensor(np.real(np.linalg.inv(sqrtm(source.numpy())))),
    )

    def cost(matrix: Tensor) -> float:
        torch.testing.assert_close(matrix @ source @ matrix.T, target, atol=1e-8, rtol=0)
        moved = matrix - torch.eye(k, dtype=F64)
        return float((moved @ source @ moved.T).trace())

    others = [root @ inverse, torch.linalg.cholesky(target) @ torch.linalg.inv(torch.linalg.cholesky(source))]
    others += [root @ torch.linalg.qr(covariance(k, 90 + draw) - 2).Q @ inverse for draw in range(20)]
    assert cost(best) <= min(map(cost, others))
    assert cost(best) < 0.9 * max(map(cost, others))  # the others are dearer for real
    assert distance(torch.zeros(k, dtype=F64), source, target) == pytest.approx(cost(best) ** 0.5, rel=1e-9)
    formula = torch.trace(source + target) - 2 * np.trace(np.real(sqrtm(root.numpy() @ source.numpy() @ root.numpy())))
    assert cost(best) == pytest.approx(float(formula), rel=1e-8)


def test_principal_components_are_those_of_sklearn() -> None:
    from sklearn.decomposition import PCA

    generator = torch.Generator().manual_seed(0)
    samples = torch.randn(50, 9, generator=generator) * torch.arange(1, 10) + 3
    basis, share = principal_components(samples, 4)
    reference = PCA(4).fit(samples.double().numpy())
    np.testing.assert_allclose(np.abs(basis.numpy() @ reference.components_.T), np.eye(4), atol=1e-8)
    assert share == pytest.approx(reference.explained_variance_ratio_.sum(), rel=1e-9)
    assert bool((basis.gather(1, basis.abs().argmax(1, keepdim=True)) > 0).all())
    flipped, _ = principal_components(samples.flip(0), 4)
    torch.testing.assert_close(flipped, basis)


def test_shrinkage_leads_from_the_samples_own_covariances_to_one_pooled() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(30, 3, generator=generator), torch.randn(11, 3, generator=generator) * 3
    own = [np.cov(sample.double().numpy().T) for sample in (x, y)]
    pooled = (29 * own[0] + 10 * own[1]) / 39
    for shrinkage, shares in ((0.0, (0, 0)), (0.25, (0.25, 0.25)), (1.0, (1, 1)), ("auto", (3 / 33, 3 / 14))):
        *found, told = shrunk_covariances(x, y, shrinkage)
        assert told == pytest.approx(shares)
        for covariance, mine, share in zip(found, own, shares, strict=True):
            np.testing.assert_allclose(covariance.numpy(), (1 - share) * mine + share * pooled, atol=1e-10)


def test_covariances_that_are_none() -> None:
    good = covariance(3, 0)
    flat = torch.diag(torch.tensor([1.0, 2.0, 0.0], dtype=F64))
    for pair in ((flat, good), (good, flat)):
        with pytest.raises(CliffscopeError, match=r"covariance is singular in these 3 dimensions .* shrinkage above 0"):
            optimal_map(*pair)
    with pytest.raises(CliffscopeError, match="the target covariance is not symmetric"):
        optimal_map(good, good + torch.triu(torch.ones(3, 3), 1))
    with pytest.raises(CliffscopeError, match="expected a finite source covariance"):
        optimal_map(good * float("nan"), good)
