"""Many L2-regularized logistic regressions at once, to the exact optimum.

Every problem of one *cell* (one layer and position) shares the cell's features Z [n, d]; the problems differ in
labels, sample weights (0 leaves a rollout out, which makes a cross-validation fold) and strength C. Each
minimizes, as scikit-learn's `LogisticRegression(C=C)` does with the intercept b unpenalized,

    J(w, b) = C Σ_i s_i log(1 + exp(−(2 y_i − 1) f_i)) + ½ ‖w‖²,    f = Z w + b.

Method. The optimum lies in the span of the data, w = Zᵀα (representer theorem), so all problems of a cell need
only the Gram matrix K = Z Zᵀ, computed once; with d < n/2 K is applied as Z(Zᵀ·) and never formed. Newton's
step solves (I + Zᵀ D Z) δw = −∇J after b is eliminated (its Schur complement: D is centred), D = C s p(1 − p).
Written in α, with inner product uᵀKv, these are conjugate gradients that cost one product with K an iteration,
taken for all problems together. They stop as early as the step allows (inexact Newton; every iterate is a
descent direction), and the step is halved until J falls.

The stopping rule bounds the error: J is 1-strongly convex in w, so ‖∇J‖ ≤ tol ‖w‖ means that w is within
tol ‖w‖ of the optimum. A problem that has converged is frozen, so its answer does not depend on what else is in
the batch. Work is in float64, on the CPU if the device has none (MPS).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from interp.errors import CliffscopeError

TOLERANCE = 1e-6
"""Default bound on the relative error of the weights."""


_NEWTON_LIMIT = 200
_CG_LIMIT = 5000


@dataclass(frozen=True)
class Solution:
    """The optima of a batch of problems, in the coordinates of the features given.

    Attributes:
        dual: α `[cell, n, problem]`; 0 where the sample weight is 0.
        bias: b `[cell, problem]`.
        logits: f `[cell, n, problem]` of all rollouts, also of those left out by a weight of 0.
        steps: Newton steps of the slowest problem.
    """

    dual: Float[Tensor, "cell n problem"]
    bias: Float[Tensor, "cell problem"]
    logits: Float[Tensor, "cell n problem"]
    steps: int


class Kernel:
    """The Gram matrices of a few cells, formed or applied through the features, whichever is cheaper."""

    def __init__(self, features: Float[Tensor, "cell n d"]) -> None:
        device = torch.device("cpu") if features.device.type == "mps" else features.device
        self.features = features.to(device=device, dtype=torch.float64)
        n, d = self.features.shape[-2:]
        self.gram = self.features @ self.features.mT if 2 * d >= n else None

    def __matmul__(self, vectors: Float[Tensor, "cell n problem"]) -> Float[Tensor, "cell n problem"]:
        if self.gram is not None:
            return self.gram @ vectors
        return self.features @ (self.features.mT @ vectors)

    def weight(self, dual: Float[Tensor, "cell n problem"]) -> Float[Tensor, "cell problem d"]:
        """The primal weights w = Zᵀα."""
        return dual.mT @ self.features


def solve(
    kernel: Kernel,
    labels: Float[Tensor, "#cell n problem"],
    sample_weight: Float[Tensor, "#cell n problem"],
    C: Float[Tensor, "#cell problem"],
    *,
    tolerance: float = TOLERANCE,
    start: Solution | None = None,
) -> Solution:
    """Solves every problem of every cell.

    Args:
        kernel: Of the cells' (standardized) features.
        labels: 0 and 1.
        sample_weight: s, not negative; 0 leaves a rollout out. Each problem needs weight in both classes.
        C: Inverse strength of the penalty, above 0; scikit-learn's convention (the loss is a sum).
        tolerance: Bound on the relative error of w.
        start: Where to start, for instance the optimum at a neighbouring C.

    Returns:
        The optima.

    Raises:
        CliffscopeError: If a problem lacks a class, or does not converge (features beyond float64's reach).
    """
    cells, n = kernel.features.shape[:2]
    shape = (cells, n, labels.shape[-1])
    y = labels.to(kernel.features).expand(shape)
    cost = (sample_weight.to(y) * C.to(y)[..., None, :]).expand(shape)
    if not bool((((cost * y).sum(-2) > 0) & ((cost * (1 - y)).sum(-2) > 0)).all()):
        raise CliffscopeError("labels: a problem has rollouts of one class only; a probe needs both.")
    state = _State.at(kernel, y, cost, start)
    for step in range(_NEWTON_LIMIT):
        active, precision = state.progress(tolerance)
        if not bool(active.any()):
            return Solution(state.dual, state.bias, state.logits, step)
        state = state.moved(*_newton_direction(kernel, state, active, precision))
    raise CliffscopeError(
        f"probe: {int(active.sum())} fits did not converge; the features may be too large or too many equal."
    )


@dataclass(frozen=True)
class _State:
    """Where the problems stand. All tensors are `[cell, n, problem]` but the bias, `[cell, problem]`."""

    y: Tensor
    cost: Tensor  # C s
    dual: Tensor
    bias: Tensor
    logits: Tensor
    curvature: Tensor  # D = C s p (1 − p)
    residual: Tensor  # r = C s (y − p) − α; the gradient of J in w is −Zᵀ r
    kernel_residual: Tensor  # K r
    bias_residual: Tensor  # Σ C s (y − p), minus the gradient of J in b
    kernel: Kernel

    @classmethod
    def at(cls, kernel: Kernel, y: Tensor, cost: Tensor, start: Solution | None) -> "_State":
        """The state at `start`, or at zero."""
        if start is None:
            zero = torch.zeros_like(y)
            return cls._from(kernel, y, cost, zero, zero[..., 0, :], zero)
        return cls._from(kernel, y, cost, start.dual, start.bias, start.logits)

    @classmethod
    def _from(cls, kernel: Kernel, y: Tensor, cost: Tensor, dual: Tensor, bias: Tensor, f: Tensor) -> "_State":
        p = f.sigmoid()
        error = cost * (y - p)
        residual = error - dual
        curvature = cost * p * (1 - p)
        return cls(y, cost, dual, bias, f, curvature, residual, kernel @ residual, error.sum(-2), kernel)

    def progress(self, tolerance: float) -> tuple[Tensor, Tensor]:
        """Which problems `[cell, problem]` are still off, and how exactly to solve their next step."""
        gradient = (self.residual * self.kernel_residual).sum(-2).clamp_min(0).sqrt()
        norm = (self.dual * (self.logits - self.bias[..., None, :])).sum(-2).clamp_min(0).sqrt()
        active = (gradient > tolerance * norm) | (self.bias_residual.abs() > tolerance * self.curvature.sum(-2))
        error = gradient / norm.clamp_min(1e-300)
        precision = torch.maximum(error.sqrt().clamp(1e-5, 0.1), 0.1 * tolerance / error.clamp_min(1e-300))
        return active, precision.clamp_max(0.1)

    def loss(self, dual: Tensor, bias: Tensor, logits: Tensor) -> Tensor:
        """J `[cell, problem]`."""
        data = (self.cost * softplus((1 - 2 * self.y) * logits)).sum(-2)
        return data + 0.5 * (dual * (logits - bias[..., None, :])).sum(-2)

    def moved(self, dual_step: Tensor, kernel_step: Tensor, bias_step: Tensor) -> "_State":
        """The state after the step, halved for each problem until J does not rise."""
        before = self.loss(self.dual, self.bias, self.logits)
        logit_step = kernel_step + bias_step[..., None, :]
        size = torch.ones_like(self.bias)
        for _ in range(40):
            scale = size[..., None, :]
            place = (self.dual + scale * dual_step, self.bias + size * bias_step, self.logits + scale * logit_step)
            rose = self.loss(*place) > before + 1e-12 * before.abs()
            if not bool(rose.any()):
                break
            size = torch.where(rose, size / 2, size)
        return self._from(self.kernel, self.y, self.cost, *place)


def _newton_direction(
    kernel: Kernel, state: _State, active: Tensor, precision: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The steps (α, Kα, b) by conjugate gradients; exactly zero for problems that are not active."""
    total = state.curvature.sum(-2, keepdim=True).clamp_min(1e-300)
    share = state.curvature / total
    # Eliminating δb = (Σ error − Σ D Kδα) / Σ D leaves (I + (D − d dᵀ/Σd) K) δα = r − d Σ error / Σd.
    left = torch.where(active[..., None, :], state.residual - share * state.bias_residual[..., None, :], 0.0)
    kernel_left = kernel @ left
    step, kernel_step = torch.zeros_like(left), torch.zeros_like(left)
    along, kernel_along = left, kernel_left
    norm = (left * kernel_left).sum(-2).clamp_min(0)
    goal = precision.square() * norm
    for _ in range(_CG_LIMIT):
        going = norm > goal
        if not bool(going.any()):
            break
        bent = state.curvature * kernel_along
        image = along + bent - share * bent.sum(-2, keepdim=True)
        length = torch.where(going, norm / (kernel_along * image).sum(-2).clamp_min(1e-300), 0.0)[..., None, :]
        step = step + length * along
        kernel_step = kernel_step + length * kernel_along
        left = left - length * image
        kernel_left = kernel @ left
        smaller = (left * kernel_left).sum(-2).clamp_min(0)
        ratio = torch.where(going, smaller / norm.clamp_min(1e-300), 0.0)[..., None, :]
        norm = torch.where(going, smaller, norm)
        along, kernel_along = left + ratio * along, kernel_left + ratio * kernel_along
    pull = (state.curvature * kernel_step).sum(-2)
    bias_step = torch.where(active, (state.bias_residual - pull) / total[..., 0, :], 0.0)
    return step, kernel_step, bias_step
