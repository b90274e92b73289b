"""Many L2-regularized logistic regressions at once, to the exact optimum.

Every problem of one *cell* (one layer and position) shares the cell's features Z [n, d]; the problems differ in
labels, sample weights (0 leaves a rollout out, which makes a cross-validation fold) and strength C. Each
minimizes, as scikit-learn's `LogisticRegression(C=C)` does with the intercept b unpenalized,

    J(w, b) = C Σ_i s_i log(1 + exp(−(2 y_i − 1) f_i)) + ½ ‖w‖²,    f = Z w + b.

Method.

1. Rotate, once for all problems of a cell. The optimum lies in the span of the data (representer theorem) and
   J does not change under a rotation of w, so Z is replaced by F = Z V [n, r], r <= min(n, d), where Z = U σ Vᵀ;
   V comes from the eigenvectors of Z Zᵀ or Zᵀ Z, whichever is smaller. FᵀF = diag(σ²).
2. Newton's method. A step solves (I + Fᵀ D F) δw = −∇J after b is eliminated (which centres D), D = C s p(1 − p).
3. Each step by conjugate gradients for all problems together, two products with F an iteration. With D replaced
   by its mean the matrix is diagonal in these coordinates: that is the preconditioner, and a handful of
   iterations is enough. They stop as early as the step allows (inexact Newton; every iterate is a descent
   direction), and the step is halved until J falls.

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


class Basis:
    """The features of a few cells in the coordinates of their singular vectors.

    Attributes:
        features: F = Z V, float64 `[cell, n, r]`.
        power: σ² of each coordinate `[cell, r]`.
    """

    def __init__(self, features: Float[Tensor, "cell n d"]) -> None:
        device = torch.device("cpu") if features.device.type == "mps" else features.device
        original = features.to(device=device, dtype=torch.float64)
        self._wide = original.shape[2] > original.shape[1]
        gram = original @ original.mT if self._wide else original.mT @ original
        power, vectors = torch.linalg.eigh(gram)
        # Below this the eigenvalues are rounding; w has no part there that could be seen.
        kept = power > 1e-13 * power[..., -1:]
        self.power = torch.where(kept, power, 0.0)
        root = self.power.sqrt()
        if self._wide:
            self.features = vectors * root[..., None, :]
            self._left = vectors * torch.where(kept, 1 / root.clamp_min(1e-300), 0.0)[..., None, :]
            self._original = original
        else:
            self.features = original @ (vectors * kept[..., None, :])
            self._vectors = vectors

    def weight(self, rotated: Float[Tensor, "cell problem r"]) -> Float[Tensor, "cell problem d"]:
        """Weights for the original features: w = V w_rotated, where V = Zᵀ U / σ if d > n."""
        if self._wide:
            return (rotated @ self._left.mT) @ self._original
        return rotated @ self._vectors.mT


@dataclass(frozen=True)
class Solution:
    """The optima of a batch of problems.

    Attributes:
        rotated: Weights in the coordinates of the basis; `Basis.weight` gives those of the features.
        bias: b.
        logits: f of all rollouts, also of those left out by a weight of 0.
        steps: Newton steps of the slowest problem.
    """

    rotated: Float[Tensor, "cell problem r"]
    bias: Float[Tensor, "cell problem"]
    logits: Float[Tensor, "cell problem n"]
    steps: int


def solve(
    basis: Basis,
    labels: Float[Tensor, "*#cell problem n"],
    sample_weight: Float[Tensor, "*#cell problem n"],
    C: Float[Tensor, "#cell problem"],
    *,
    tolerance: float = TOLERANCE,
    start: Solution | None = None,
) -> Solution:
    """Solves every problem of every cell.

    Args:
        basis: Of the cells' (standardized) features.
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
    cells, n, _ = basis.features.shape
    shape = (cells, labels.shape[-2], n)
    y = labels.to(basis.features).expand(shape)
    cost = (sample_weight.to(y) * C.to(y)[..., None]).expand(shape)
    if not bool((((cost * y).sum(-1) > 0) & ((cost * (1 - y)).sum(-1) > 0)).all()):
        raise CliffscopeError("labels: a problem has rollouts of one class only; a probe needs both.")
    state = _State.at(basis, y, cost, start)
    for step in range(_NEWTON_LIMIT):
        active, precision = state.progress(tolerance)
        if not bool(active.any()):
            return Solution(state.rotated, state.bias, state.logits, step)
        state = state.moved(*_newton_step(state, active, precision))
    raise CliffscopeError(
        f"probe: {int(active.sum())} fits did not converge; the features may be too large or too many equal."
    )


@dataclass(frozen=True)
class _State:
    """Where the problems stand: `[cell, problem, n]` or `[cell, problem, r]`, the bias `[cell, problem]`."""

    basis: Basis
    y: Tensor
    cost: Tensor  # C s
    rotated: Tensor
    bias: Tensor
    logits: Tensor
    curvature: Tensor  # D = C s p (1 − p)
    downhill: Tensor  # −∇J in w
    bias_downhill: Tensor  # −∇J in b

    @classmethod
    def at(cls, basis: Basis, y: Tensor, cost: Tensor, start: Solution | None) -> "_State":
        """The state at `start`, or at zero."""
        if start is not None:
            return cls._from(basis, y, cost, start.rotated, start.bias, start.logits)
        rotated = y.new_zeros(*y.shape[:2], basis.features.shape[-1])
        return cls._from(basis, y, cost, rotated, torch.zeros_like(y[..., 0]), torch.zeros_like(y))

    @classmethod
    def _from(cls, basis: Basis, y: Tensor, cost: Tensor, rotated: Tensor, bias: Tensor, logits: Tensor) -> "_State":
        p = logits.sigmoid()
        error = cost * (y - p)
        downhill = error @ basis.features - rotated
        return cls(basis, y, cost, rotated, bias, logits, cost * p * (1 - p), downhill, error.sum(-1))

    def progress(self, tolerance: float) -> tuple[Tensor, Tensor]:
        """Which problems `[cell, problem]` are still off, and how exactly to solve their next step."""
        slope, norm = self.downhill.norm(dim=-1), self.rotated.norm(dim=-1)
        active = (slope > tolerance * norm) | (self.bias_downhill.abs() > tolerance * self.curvature.sum(-1))
        error = slope / norm.clamp_min(1e-300)
        enough = 0.1 * tolerance / error.clamp_min(1e-300)
        return active, torch.maximum(error.sqrt().clamp(1e-5, 0.1), enough).clamp_max(0.1)

    def loss(self, rotated: Tensor, logits: Tensor) -> Tensor:
        """J `[cell, problem]`."""
        data = (self.cost * softplus((1 - 2 * self.y) * logits)).sum(-1)
        return data + 0.5 * rotated.square().sum(-1)

    def moved(self, step: Tensor, bias_step: Tensor) -> "_State":
        """The state after the step, halved for each problem until J does not rise."""
        before = self.loss(self.rotated, self.logits)
        logit_step = step @ self.basis.features.mT + bias_step[..., None]
        size = torch.ones_like(self.bias)
        for _ in range(40):
            rotated = self.rotated + size[..., None] * step
            logits = self.logits + size[..., None] * logit_step
            rose = self.loss(rotated, logits) > before + 1e-12 * before.abs()
            if not bool(rose.any()):
                break
            size = torch.where(rose, size / 2, size)
        return self._from(self.basis, self.y, self.cost, rotated, self.bias + size * bias_step, logits)


def _newton_step(state: _State, active: Tensor, precision: Tensor) -> tuple[Tensor, Tensor]:
    """The step in w and b by conjugate gradients; exactly zero for problems that are not active."""
    features, curvature = state.basis.features, state.curvature
    total = curvature.sum(-1, keepdim=True).clamp_min(1e-300)
    share = curvature / total
    diagonal = 1 + curvature.mean(-1, keepdim=True) * state.basis.power[..., None, :]
    # With b eliminated: (I + Fᵀ (D − d dᵀ / Σd) F) δw = −∇_w J + Fᵀ d · ∇_b J / Σd.
    left = state.downhill - (share * state.bias_downhill[..., None]) @ features
    left = torch.where(active[..., None], left, 0.0)
    step, along = torch.zeros_like(left), left / diagonal
    norm = (left * along).sum(-1)
    goal = precision.square() * norm
    for _ in range(_CG_LIMIT):
        going = norm > goal
        if not bool(going.any()):
            break
        bent = curvature * (along @ features.mT)
        image = along + (bent - share * bent.sum(-1, keepdim=True)) @ features
        length = torch.where(going, norm / (along * image).sum(-1).clamp_min(1e-300), 0.0)[..., None]
        step = step + length * along
        left = left - length * image
        scaled = left / diagonal
        smaller = (left * scaled).sum(-1)
        ratio = torch.where(going, smaller / norm.clamp_min(1e-300), 0.0)[..., None]
        norm = torch.where(going, smaller, norm)
        along = scaled + ratio * along
    pull = (curvature * (step @ features.mT)).sum(-1)
    return step, torch.where(active, (state.bias_downhill - pull) / total[..., 0], 0.0)
