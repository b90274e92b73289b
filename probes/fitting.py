"""From raw activations to probe weights: standardization, class balance, and the strength by cross-validation.

The penalty strength is chosen by cross-validation over `C_GRID`: the folds are stratified and never part the
rollouts of one prompt; the C with the smallest held-out log loss (classes balanced) wins, the smaller C on a
tie. Features are standardized once with all training rollouts, not in each fold again: standardization sees no
labels, and one Gram matrix then serves every fold.
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
from probes.solver import TOLERANCE, Kernel, Solution, solve

C_GRID = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Strengths tried by cross-validation, in scikit-learn's convention, on standardized features."""

N_FOLDS = 5

_CV_TOLERANCE = 1e-3
_CHUNK_BYTES = 64_000_000


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
    # A cell holds its features three times over while it is standardized, and its Gram matrix, in float64.
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
    kernel = Kernel(features)
    y = labels.to(features)
    cells, problems = len(features), labels.shape[1]
    if folds is None:
        chosen = torch.full((cells, problems), float(strengths[0]), dtype=y.dtype, device=y.device)
    else:
        chosen = choose_strength(kernel, y, folds, strengths, balanced)
    optimum = solve(kernel, y, class_weights(y, torch.ones_like(y), balanced), chosen, tolerance=TOLERANCE)
    weight = kernel.weight(optimum.dual) / scale[:, None, :]
    return Fits(weight, optimum.bias - (weight @ mean[..., None])[..., 0], chosen)


def standardize(
    activations: Float[Tensor, "cell n d_model"],
) -> tuple[Float[Tensor, "cell n d_model"], Float[Tensor, "cell d_model"], Float[Tensor, "cell d_model"]]:
    """Features of mean 0 and standard deviation 1, in float64, with the means and standard deviations.

    A feature that is constant up to rounding keeps its scale (standard deviation 1) and so gets weight 0.
    """
    device = torch.device("cpu") if activations.device.type == "mps" else activations.device
    values = activations.to(device=device).to(torch.float64)
    mean = values.mean(1, keepdim=True)
    centred = values - mean
    scale = centred.square().mean(1, keepdim=True).sqrt()
    scale = torch.where(scale <= 1e-10 * mean.abs(), 1.0, scale)
    return centred / scale, mean[:, 0], scale[:, 0]


def class_weights(
    y: Float[Tensor, "n problem"], included: Float[Tensor, "n problem"], balanced: bool
) -> Float[Tensor, "n problem"]:
    """The weight of each rollout: `included` (0 or 1), times n / (2 n_class) if balanced."""
    if not balanced:
        return included
    total = included.sum(0)
    positive = (included * y).sum(0)
    return included * torch.where(y > 0, total / (2 * positive), total / (2 * (total - positive)))


def choose_strength(
    kernel: Kernel,
    y: Float[Tensor, "n problem"],
    folds: NDArray[np.int64],
    grid: tuple[float, ...],
    balanced: bool,
) -> Float[Tensor, "cell problem"]:
    """The C of the smallest held-out log loss for every cell and labelling; the smaller one on a tie."""
    n, problems = y.shape
    numbers = np.unique(folds)
    if len(numbers) < 2:
        raise CliffscopeError("C='cv' needs at least 2 folds; pass a fixed C for so few prompts.")
    held = torch.as_tensor(folds[:, None] == numbers[None, :]).to(y)  # [n, fold]
    labels = y[:, :, None].expand(n, problems, len(numbers)).reshape(n, -1)
    left_out = held[:, None, :].expand(n, problems, len(numbers)).reshape(n, -1)
    weights = class_weights(labels, 1 - left_out, balanced)
    judged = left_out * class_weights(y, torch.ones_like(y), balanced).repeat_interleave(len(numbers), 1)
    losses, last = [], None
    for C in grid:
        strength = torch.full((1, labels.shape[1]), float(C), dtype=y.dtype, device=y.device)
        last = _solved_from(kernel, labels, weights, strength, last)
        loss = (judged * softplus((1 - 2 * labels) * last.logits)).sum(-2)
        losses.append(loss.unflatten(-1, (problems, len(numbers))).sum(-1) / n)
    table = torch.stack(losses, -1)  # [cell, problem, C]
    best = table.amin(-1, keepdim=True)
    first = (table <= best * (1 + 1e-3)).to(torch.int64).argmax(-1)
    return torch.tensor(grid, dtype=y.dtype, device=y.device)[first]


def _solved_from(kernel: Kernel, labels: Tensor, weights: Tensor, strength: Tensor, last: Solution | None) -> Solution:
    """One rung of the path of rising C, started from the rung before."""
    return solve(kernel, labels, weights, strength, tolerance=_CV_TOLERANCE, start=last)
