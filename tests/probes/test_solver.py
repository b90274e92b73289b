import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from interp.errors import CliffscopeError
from probes.fitting import class_weights, standardize
from probes.solver import Basis, Solution, solve
from tests.probes.planted_activations import planted


def solved(features, labels, C, weights=None, **kwargs):
    """One cell `[n, d]` and labels `[n, problem]`: weights `[problem, d]`, biases, and the solution."""
    y = labels.double().mT
    s = torch.ones_like(y) if weights is None else weights.double().mT
    basis = Basis(features[None])
    strength = torch.as_tensor(C, dtype=torch.float64).expand(1, len(y))
    solution = solve(basis, y, s, strength, **kwargs)
    return basis.weight(solution.rotated)[0], solution.bias[0], solution


def by_scikit_learn(features, labels, C, weight=None):
    reference = LogisticRegression(C=C, tol=1e-10, max_iter=100_000, solver="newton-cholesky")
    if features.shape[1] > 600:  # Newton on d x d matrices would take minutes
        reference = LogisticRegression(C=C, tol=1e-10, max_iter=100_000, solver="lbfgs")
    reference.fit(features.numpy(), labels.numpy(), sample_weight=weight)
    return torch.as_tensor(reference.coef_[0]), float(reference.intercept_[0])


def relative_error(found, expected):
    return float((found - expected).norm() / expected.norm())


SHAPES = {
    "d much smaller than n": (300, 8, 1.0, 0.5),
    "d smaller than n": (120, 40, 1.0, 0.5),
    "d about n": (64, 60, 1.5, 0.5),
    "d larger than n": (50, 300, 2.0, 0.5),
    "much larger": (100, 2048, 2.0, 0.5),
    "separable": (80, 12, 12.0, 0.5),
    "imbalanced": (200, 30, 2.0, 0.08),
    "nothing to find": (90, 200, 0.0, 0.4),
}


@pytest.mark.parametrize("C", [1e-4, 1e-2, 1.0, 30.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_weights_agree_with_scikit_learn(shape, C):
    n, d, gap, share = SHAPES[shape]
    activations, labels, _ = planted(n, d, gap=gap, share=share)
    features = standardize(activations[None])[0][0]
    weight, bias, _ = solved(features, labels[:, None], C)
    expected, expected_bias = by_scikit_learn(features, labels, C)
    assert relative_error(weight[0], expected) < 1e-3
    assert float(bias[0]) == pytest.approx(expected_bias, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_balanced_weights_agree_with_scikit_learn(share):
    activations, labels, _ = planted(150, 40, share=share, gap=1.5)
    features = standardize(activations[None])[0][0]
    y = labels[:, None].double()
    weight, bias, _ = solved(features, y, 0.1, class_weights(y.mT, torch.ones_like(y.mT), balanced=True).mT)
    reference = LogisticRegression(C=0.1, tol=1e-10, class_weight="balanced", solver="newton-cholesky")
    reference.fit(features.numpy(), labels.numpy())
    assert relative_error(weight[0], torch.as_tensor(reference.coef_[0])) < 1e-3
    assert float(bias[0]) == pytest.approx(reference.intercept_[0], rel=1e-3, abs=1e-3)


@given(st.integers(10, 40), st.integers(1, 60), st.floats(-4, 2), st.floats(0, 8), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_the_gradient_vanishes_at_the_solution(n, d, exponent, gap, seed):
    # Independent of any reference: autograd on the objective as it is written in the docstring.
    activations, labels, _ = planted(n, d, gap=gap, seed=seed)
    features = standardize(activations[None])[0][0]
    weight, bias, _ = solved(features, labels[:, None], 10.0**exponent, tolerance=1e-8)
    w, b = weight[0].clone().requires_grad_(), bias[0].clone().requires_grad_()
    margin = (2 * labels.double() - 1) * (features @ w + b)
    loss = 10.0**exponent * torch.log1p(torch.exp(-margin)).sum() + 0.5 * w.square().sum()
    loss.backward()
    assert w.grad.norm().item() <= 1e-6 * w.norm().item() + 1e-12
    assert abs(float(b.grad)) <= 1e-6 * 10.0**exponent * n


def test_many_problems_equal_one_at_a_time():
    activations, labels, _ = planted(60, 100, gap=1.0)
    features = standardize(activations[None])[0][0]
    generator = torch.Generator().manual_seed(1)
    y = torch.stack([labels[torch.randperm(60, generator=generator)] for _ in range(6)], 1)
    C = torch.tensor([1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0])
    together, biases, _ = solved(features, y, C)
    for k in range(6):
        alone, bias, _ = solved(features, y[:, k : k + 1], C[k : k + 1])
        torch.testing.assert_close(together[k], alone[0], rtol=0, atol=1e-9)
        torch.testing.assert_close(biases[k], bias[0], rtol=0, atol=1e-9)


def test_many_cells_equal_one_at_a_time():
    cells = torch.stack([standardize(planted(50, 70, seed=seed)[0][None])[0][0] for seed in range(4)])
    y = planted(50, 70)[1][None].double()
    basis, C = Basis(cells), torch.full((1, 1), 0.1)
    together = basis.weight(solve(basis, y, torch.ones_like(y), C).rotated)
    for cell in range(4):
        alone, _, _ = solved(cells[cell], y.mT, 0.1)
        torch.testing.assert_close(together[cell], alone, rtol=1e-5, atol=1e-8)


def test_a_rollout_of_weight_zero_is_left_out_and_still_scored():
    activations, labels, _ = planted(60, 90, gap=2.0)
    features = standardize(activations[None])[0][0]
    kept = torch.arange(60) >= 15
    weight, bias, solution = solved(features, labels[:, None], 0.1, kept[:, None])
    alone, alone_bias, _ = solved(features[kept], labels[kept][:, None], 0.1)
    torch.testing.assert_close(weight, alone, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(solution.logits[0, 0], features @ alone[0] + alone_bias, rtol=1e-5, atol=1e-6)
    assert float(bias[0]) == pytest.approx(float(alone_bias[0]), rel=1e-5, abs=1e-8)


def test_a_start_elsewhere_ends_at_the_same_place():
    activations, labels, _ = planted(60, 90, gap=2.0)
    features = standardize(activations[None])[0][0]
    weight, _, cold = solved(features, labels[:, None], 1.0)
    _, _, near = solved(features, labels[:, None], 0.3)
    again, _, warm = solved(features, labels[:, None], 1.0, start=near)
    torch.testing.assert_close(again, weight, rtol=1e-5, atol=1e-6)
    assert warm.steps < cold.steps
    _, _, there = solved(features, labels[:, None], 1.0, start=cold)
    assert there.steps == 0 and isinstance(there, Solution)


@given(st.integers(0, 100))
@settings(max_examples=15, deadline=None)
def test_the_order_of_rollouts_does_not_matter(seed):
    activations, labels, _ = planted(30, 45, gap=1.0, seed=seed)
    features = standardize(activations[None])[0][0]
    order = torch.randperm(30, generator=torch.Generator().manual_seed(seed))
    weight, bias, _ = solved(features, labels[:, None], 0.5, tolerance=1e-9)
    shuffled, other, _ = solved(features[order], labels[order][:, None], 0.5, tolerance=1e-9)
    torch.testing.assert_close(shuffled, weight, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(other, bias, rtol=1e-6, atol=1e-8)


def test_repeated_rollouts_and_constant_features_are_no_obstacle():
    activations, labels, _ = planted(20, 30)
    activations, labels = activations.repeat(3, 1), labels.repeat(3)
    activations[:, 4] = 7.5
    features, _, scale = standardize(activations[None])
    assert float(scale[0, 4]) == 1.0
    weight, _, _ = solved(features[0], labels[:, None], 0.1)
    expected, _ = by_scikit_learn(features[0], labels, 0.1)
    assert relative_error(weight[0], expected) < 1e-3
    assert abs(float(weight[0, 4])) < 1e-9


def test_features_that_are_all_constant_give_weight_zero_and_the_base_rate():
    labels = torch.tensor([1] * 6 + [0] * 2)[:, None]
    weight, bias, _ = solved(torch.zeros(8, 3), labels, 1.0)
    assert (weight == 0).all()
    assert float(bias[0]) == pytest.approx(np.log(3), abs=1e-5)


def test_a_problem_without_both_classes_is_refused():
    activations, labels, _ = planted(20, 5)
    with pytest.raises(CliffscopeError, match="one class only"):
        solved(activations, labels[:, None], 1.0, labels[:, None])


def test_standardized_features_have_mean_0_and_deviation_1():
    features, mean, scale = standardize(planted(40, 6)[0][None])
    torch.testing.assert_close(features.mean(1), torch.zeros(1, 6).double(), atol=1e-12, rtol=0)
    torch.testing.assert_close(features.std(1, correction=0), torch.ones(1, 6).double())
    torch.testing.assert_close((features * scale + mean)[0].float(), planted(40, 6)[0])
