"""The mean-difference probe: along the difference of the class means, calibrated in one dimension.

The direction is r = mean₁ − mean₀ in raw coordinates (arXiv 2406.11717, 2507.11878), the threshold the midpoint
of the two means. The papers stop there; for σ(w·h + b) to be a probability the projection
x = r·h − midpoint, divided by its standard deviation, gets a slope k > 0: the one-dimensional logistic fit
without intercept and with L2 penalty k²/2 (C = 1), which keeps k finite where the classes do not overlap.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import CliffscopeError
from probes.fitting import Fits, class_weights


def fit_mean_difference(
    activations: Float[Tensor, "cell n d_model"], labels: Int[Tensor, "n problem"], *, balanced: bool = True
) -> Fits:
    """Fits one probe for every cell and labelling; `C` of the result is 1, that of the slope.

    Args:
        activations: Training rollouts only.
        labels: Of 0 and 1.
        balanced: Whether the classes weigh the same in the fit of the slope.

    Raises:
        CliffscopeError: If the two classes have the same mean.
    """
    device = torch.device("cpu") if activations.device.type == "mps" else activations.device
    h = activations.to(device=device).to(torch.float64)
    y = labels.to(h)
    mean_1 = torch.einsum("np,cnd->cpd", y / y.sum(0), h)
    mean_0 = torch.einsum("np,cnd->cpd", (1 - y) / (1 - y).sum(0), h)
    direction = mean_1 - mean_0
    if not bool((direction.norm(dim=-1) > 0).all()):
        raise CliffscopeError("activations: both classes have the same mean; there is no mean difference.")
    middle = (direction * (mean_1 + mean_0)).sum(-1) / 2  # [cell, problem]
    projection = (h @ direction.mT) - middle[:, None]  # [cell, n, problem]
    spread = projection.square().mean(1).sqrt()
    signed = (2 * y - 1) * projection / spread[:, None]
    slope = _slope(signed, class_weights(y.mT, torch.ones_like(y.mT), balanced).mT) / spread
    return Fits(slope[..., None] * direction, -slope * middle, torch.ones_like(slope))


def _slope(
    signed: Float[Tensor, "cell n problem"], weights: Float[Tensor, "n problem"]
) -> Float[Tensor, "cell problem"]:
    """The k that minimizes Σ s log(1 + exp(−k x)) + k²/2, by bisection of the rising derivative."""
    low = torch.zeros_like(signed[:, 0])
    high = (weights * signed.abs()).sum(1)  # the derivative is positive here: |loss'| < Σ s |x|
    for _ in range(100):
        middle = (low + high) / 2
        rising = middle - (weights * signed * torch.sigmoid(-middle[:, None] * signed)).sum(1) > 0
        low, high = torch.where(rising, low, middle), torch.where(rising, middle, high)
    return (low + high) / 2
