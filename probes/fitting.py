"""From raw activations to probe weights: standardization, class balance, and the strength by cross-validation.

The penalty strength is chosen by cross-validation over `C_GRID`: the folds are stratified and never part the
rollouts of one prompt; the C with the smallest held-out log loss (classes balanced) wins, the smaller C on a
tie. Features are standardized once with all training rollouts, not in each fold again: standardization sees no
labels, and one decomposition then serves every fold.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import softplus

from interp.errors import CliffscopeError
from probes.solver import TOLERANCE, Basis, Solution, solve

C_GRID = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Strengths tried by cross-validation, in scikit-learn's convention, on standardized features."""

N_FOLDS = 5

_CV_TOLERANCE = 1e-3
_CHUNK_BYTES = 8_000_000  # small cells are solved in batches, large ones alone: so each stays in the cache


@dataclass(frozen=True)
class Fits:
    """Fitted probes in raw coordinates: logit = weight · h + bias.

    Attributes:
        weight: float64.
        bias: float64.
        C: The strength used.
    """

    weight: Float[Tensor, "cell problem d_model"]
    bias: Float[Tensor, "cell problem"]
    C: Float[Tensor, "cell problem"]


def fit_logistic(
    activations: Float[Tensor, "cell n d_model"],
    labels: Int[Tensor, "n problem"],
    C: float | Literal["cv"] = "cv",
    *,
    balanced: bool = True,
    folds: NDArray[np.int64] | None = None,
    grid: tuple[float, ...] = C_GRID,
) -> Fits:
    """Fits one probe for every cell and labelling.

    Args:
        activations: Training rollouts only.
        labels: Of 0 and 1; every cell is fitted to each of them.
        C: Inverse strength of the penalty, or `"cv"`.
        balanced: Whether to weight the classes to equal totals, as scikit-learn's `class_weight="balanced"`.
        folds: The fold `[n]` of each rollout, needed for `"cv"`.
        grid: Strengths for `"cv"`, ascending.

    Raises:
        CliffscopeError: If C is not positive, or some fold or labelling lacks a class.
    """
    strengths = grid if C == "cv" else (C,)
    if not all(isinstance(value, int | float) and 0 < value < float("inf") for value in strengths):
        raise CliffscopeError(f"C: expected a positive number or 'cv', found {C!r}.")
    if C == "cv" and folds is None:
        raise CliffscopeError("C='cv' needs the fold of each rollout; pass folds or a fixed C.")
    n, d = activations.shape[1:]
    step = max(1, _CHUNK_BYTES // (8 * n * (n + 3 * d)))
    parts = [
        _fit_chunk(activations[i : i + step], labels, strengths, balanced, folds if C == "cv" else None)
        for i in range(0, len(activations), step)
    ]
    return Fits(
        torch.cat([part.weight for part in parts]),
        torch.cat([part.bias for part in parts]),
        torch.cat([part.C for part in parts]),
    )


def _fit_chunk(
    activations: Tensor,
    labels: Tensor,
    strengths: tuple[float, ...],
    balanced: bool,
    folds: NDArray[np.int64] | None,
) -> Fits:
    """`fit_logistic` for cells that are solved together."""
    features, mean, scale = standardize(activations)
    basis = Basis(features)
    y = labels.mT.to(features)
    cells, problems = len(features), len(y)
    if folds is None:
        chosen = torch.full((cells, problems), float(strengths[0]), dtype=y.dtype, device=y.device)
    else:
        chosen = choose_strength(basis, y, folds, strengths, balanced)
    optimum = solve(basis, y, class_weights(y, torch.ones_like(y), balanced), chosen, tolerance=TOLERANCE)
    weight = basis.weight(optimum.rotated) / scale[:, None, :]
    return Fits(weight, optimum.bias - (weight @ mean[..., None])[..., 0], chosen)


def standardize(
    activations: Float[Tensor, "cell n d_model"],
) -> tuple[Float[Tensor, "cell n d_model"], Float[Tensor, "cell d_model"], Float[Tensor, "cell d_model"]]:
    """Features of mean 0 and standard deviation 1, in float64, with the means and standard deviations.

    A feature that is constant up to rounding keeps its scale (standard deviation 1) and so gets weight 0.
    """
    device = torch.device("cpu") if activations.device.type == "mps" else activations.device
    values = activations.to(device=device).to(torch.float64, copy=True, memory_format=torch.contiguous_format)
    mean = values.mean(1, keepdim=True)
    values -= mean
    scale = torch.linalg.vector_norm(values, dim=1, keepdim=True) / values.shape[1] ** 0.5
    scale = torch.where(scale <= 1e-10 * mean.abs(), 1.0, scale)
    values /= scale
    return values, mean[:, 0], scale[:, 0]


def class_weights(
    y: Float[Tensor, "problem n"], included: Float[Tensor, "problem n"], balanced: bool
) -> Float[Tensor, "problem n"]:
    """The weight of each rollout: `included` (0 or 1), times n / (2 n_class) if balanced."""
    if not balanced:
        return included
    total = included.sum(-1, keepdim=True)
    positive = (included * y).sum(-1, keepdim=True)
    return included * torch.where(y > 0, total / (2 * positive), total / (2 * (total - positive)))


def choose_strength(
    basis: Basis,
    y: Float[Tensor, "problem n"],
    folds: NDArray[np.int64],
    grid: tuple[float, ...],
    balanced: bool,
) -> Float[Tensor, "cell problem"]:
    """The C of the smallest held-out log loss for every cell and labelling; the smaller one on a tie."""
    problems, n = y.shape
    numbers = np.unique(folds)
    if len(numbers) < 2:
        raise CliffscopeError("C='cv' needs at least 2 folds; pass a fixed C for so few prompts.")
    held = torch.as_tensor(folds[None, :] == numbers[:, None]).to(y)  # [fold, n]
    labels = y.repeat_interleave(len(numbers), 0)  # one problem for each labelling and fold
    left_out = held.repeat(problems, 1)
    weights = class_weights(labels, 1 - left_out, balanced)
    judged = left_out * class_weights(y, torch.ones_like(y), balanced).repeat_interleave(len(numbers), 0)
    losses: list[Tensor] = []
    solution: Solution | None = None
    for C in grid:  # a path of rising C, each rung started from the one before
        strength = torch.full((1, len(labels)), float(C), dtype=y.dtype, device=y.device)
        solution = solve(basis, labels, weights, strength, tolerance=_CV_TOLERANCE, start=solution)
        loss = (judged * softplus((1 - 2 * labels) * solution.logits)).sum(-1)
        losses.append(loss.unflatten(-1, (problems, len(numbers))).sum(-1) / n)
    table = torch.stack(losses, -1)  # [cell, problem, C]
    best = table.amin(-1, keepdim=True)
    # The losses are known to about the tolerance: what lies closer together is a tie.
    first = (table <= best * (1 + _CV_TOLERANCE)).to(torch.int64).argmax(-1)
    return torch.tensor(grid, dtype=y.dtype, device=y.device)[first]
