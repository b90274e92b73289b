"""From two samples to a direction: each method against another's arithmetic, on what was planted, and on noise."""

import numpy as np
import pytest
import torch
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from interp.errors import CliffscopeError
from interventions.directions import METHODS, fit_direction
from interventions.directions.estimators import random_pairs
from tests.probes.planted_activations import planted


def samples(n: int = 120, d: int = 12, share: float = 0.4, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    activations, labels, _ = planted(n, d, share=share, seed=seed)
    # Correlated, so that the methods differ.
    mixing = torch.randn(d, d, generator=torch.Generator().manual_seed(seed + 1)) + 2 * torch.eye(d)
    return activations[labels == 1] @ mixing, activations[labels == 0] @ mixing


def cosine(a: torch.Tensor, b: torch.Tensor | np.ndarray) -> float:
    return float(torch.nn.functional.cosine_similarity(a.double(), torch.as_tensor(b).double(), dim=0))


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_finds_what_was_planted_and_knows_its_sides(method: str) -> None:
    activations, labels, truth = planted(600, 16, gap=8.0)
    positive, negative = activations[labels == 1], activations[labels == 0]
    found = fit_direction(positive, negative, method=method)
    assert found.method == method and found.basis.shape == (1, 16)
    assert cosine(found.vector, truth) > 0.95
    assert found.positive is not None and found.negative is not None
    assert float(found.positive) == pytest.approx(float((positive @ found.vector).mean()), abs=1e-3)
    assert float(found.negative) == pytest.approx(float((negative @ found.vector).mean()), abs=1e-3)
    assert found.scale == pytest.approx(float(found.positive - found.negative), abs=1e-4)
    back = fit_direction(negative, positive, method=method)
    assert cosine(back.vector, -found.vector) > 0.999


@pytest.mark.parametrize("method", sorted(METHODS))
def test_no_method_finds_it_in_shuffled_labels(method: str) -> None:
    activations, labels, truth = planted(200, 64, gap=8.0)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(1))
    kinds = labels[order]
    # Half of each class in each group: what was planted is the same in both.
    positive, negative = activations[kinds == 1], activations[kinds == 0]
    if method == "paired-pca":  # differences of pairs vary most along it, whatever the labels: that is its weakness
        assert abs(cosine(fit_direction(positive, negative, method=method).vector, truth)) > 0.9
        return
    assert abs(cosine(fit_direction(positive, negative, method=method).vector, truth)) < 0.7


def test_mean_difference_is_the_difference_of_the_means() -> None:
    positive, negative = samples()
    found = fit_direction(positive, negative)
    expected = positive.numpy().astype(np.float64).mean(0) - negative.numpy().astype(np.float64).mean(0)
    assert found.scale == pytest.approx(np.linalg.norm(expected), rel=1e-5)
    np.testing.assert_allclose(found.vector.numpy(), expected / np.linalg.norm(expected), atol=1e-6)
    moved = fit_direction(positive + 100, negative + 100)
    np.testing.assert_allclose(moved.vector.numpy(), found.vector.numpy(), atol=1e-4)


@pytest.mark.parametrize("d", [12, 150])
@pytest.mark.parametrize("shrinkage", [0.05, 0.5, 1.0, "auto"])
def test_discriminant_is_that_of_scikit_learn(d: int, shrinkage: float | str) -> None:
    positive, negative = samples(100, d, share=0.3)
    found = fit_direction(positive, negative, method="discriminant", shrinkage=shrinkage)  # type: ignore[arg-type]
    x = torch.cat([positive, negative]).double().numpy()
    y = np.array([1] * len(positive) + [0] * len(negative))
    if shrinkage == "auto":
        centred = np.concatenate([x[y == label] - x[y == label].mean(0) for label in (1, 0)])
        shrinkage = float(ledoit_wolf_shrinkage(centred, assume_centered=True))
        assert 0 < shrinkage < 1
    assert found.training["shrinkage"] == pytest.approx(shrinkage, rel=1e-6)
    reference = LinearDiscriminantAnalysis(solver="eigen", shrinkage=shrinkage).fit(x, y)
    assert cosine(found.vector, reference.coef_[0]) > 1 - 1e-6
    if shrinkage == 1.0:
        assert cosine(found.vector, fit_direction(positive, negative).vector) > 1 - 1e-6
    elif shrinkage == 0.05:  # or the covariance would make no difference
        assert cosine(found.vector, fit_direction(positive, negative).vector) < 0.95


def test_discriminant_without_shrinkage_where_it_is_determined() -> None:
    positive, negative = samples(100, 12)
    found = fit_direction(positive, negative, method="discriminant", shrinkage=0.0)
    x, y = torch.cat([positive, negative]).double().numpy(), [1] * len(positive) + [0] * len(negative)
    reference = LinearDiscriminantAnalysis(solver="eigen").fit(x, y)
    assert cosine(found.vector, reference.coef_[0]) > 1 - 1e-6
    assert abs(cosine(found.vector, reference.scalings_[:, 0])) > 1 - 1e-6  # the leading one indeed
    with pytest.raises(CliffscopeError, match="100 rollouts do not determine a covariance of width 150"):
        fit_direction(*samples(100, 150), method="discriminant", shrinkage=0.0)


def test_probe_is_the_logistic_regression_of_scikit_learn() -> None:
    positive, negative = samples()
    found = fit_direction(positive, negative, method="probe")
    scaler = StandardScaler().fit(torch.cat([positive, negative]))
    x, y = scaler.transform(torch.cat([positive, negative])), [1] * len(positive) + [0] * len(negative)
    reference = LogisticRegression(C=found.training["C"], class_weight="balanced", tol=1e-10, max_iter=10_000)
    assert cosine(found.vector, reference.fit(x, y).coef_[0] / scaler.scale_) > 1 - 1e-5


def test_paired_component_is_the_first_principal_component_of_signed_differences() -> None:
    positive, negative = samples()
    pairs = [(i, (7 * i) % len(negative)) for i in range(len(positive))]
    found = fit_direction(positive, negative, method="paired-pca", pairs=pairs)
    differences = np.stack([(positive[i] - negative[j]).double().numpy() for i, j in pairs])
    reference = PCA(n_components=1).fit(np.concatenate([differences, -differences])).components_[0]
    assert abs(cosine(found.vector, reference)) > 1 - 1e-6
    assert found.training["pairing"] == "given" and found.training["n_pairs"] == len(pairs)
    # Which row is paired with which matters.
    assert cosine(found.vector, fit_direction(positive, negative, method="paired-pca").vector) < 1 - 1e-4


@pytest.mark.parametrize(("n", "m"), [(5, 5), (3, 10), (10, 4)])
def test_random_pairs_use_every_row_evenly(n: int, m: int) -> None:
    pairs = random_pairs(n, m, seed=0)
    assert len(pairs) == max(n, m) and pairs == random_pairs(n, m, seed=0) != random_pairs(n, m, seed=1)
    for side, size in ((0, n), (1, m)):
        used = np.bincount([pair[side] for pair in pairs], minlength=size)
        assert len(used) == size and used.max() - used.min() <= 1


def test_activations_in_half_precision_give_a_float32_direction() -> None:
    positive, negative = samples()
    found = fit_direction(positive.bfloat16(), negative.bfloat16())
    assert found.basis.dtype == torch.float32
    exact = positive.bfloat16().double().mean(0) - negative.bfloat16().double().mean(0)
    assert found.scale == pytest.approx(float(exact.norm()), rel=1e-6)


def test_what_cannot_be_fitted_is_refused() -> None:
    positive, negative = samples()
    with pytest.raises(CliffscopeError, match="method 'magic': expected one of mean-difference, probe, discriminant"):
        fit_direction(positive, negative, method="magic")
    with pytest.raises(CliffscopeError, match="at least 8 rollouts, found 3 of the positive and 4 of the negative"):
        fit_direction(positive[:3], negative[:4])
    with pytest.raises(CliffscopeError, match=r"needs both classes .* found 0 of the positive"):
        fit_direction(positive[:0], negative)
    with pytest.raises(CliffscopeError, match="both classes have the same mean"):
        fit_direction(positive, positive)
    with pytest.raises(CliffscopeError, match="1 NaN or infinite value, the first in rollout 2"):
        broken = positive.clone()
        broken[2, 0] = float("inf")
        fit_direction(broken, negative)
    with pytest.raises(CliffscopeError, match="shrinkage: expected a share from 0 to 1, or auto, found 2"):
        fit_direction(positive, negative, method="discriminant", shrinkage=2)
    with pytest.raises(CliffscopeError, match="at least 2, found 1"):
        fit_direction(positive, negative, method="paired-pca", pairs=[(0, 0)])
    with pytest.raises(CliffscopeError, match="negative rows are 0 to 71, found 0 to 72"):
        fit_direction(positive, negative, method="paired-pca", pairs=[(0, 0), (1, 72)])
