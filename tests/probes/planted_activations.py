"""Activations with a direction planted in them, for the tests of the probes."""

import torch
from torch import Tensor


def planted(n: int, d: int, *, gap: float = 3.0, share: float = 0.5, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Noise with uneven scales and offsets, two classes `gap` apart along a unit direction.

    Returns:
        Activations `[n, d]`, labels `[n]`, and the direction `[d]`.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.arange(n) < round(share * n)).long()
    direction = torch.randn(d, generator=generator)
    direction /= direction.norm()
    noise = torch.randn(n, d, generator=generator)
    offsets = 3 * torch.randn(d, generator=generator)
    activations = noise + gap * (labels[:, None] - 0.5) * direction + offsets
    order = torch.randperm(n, generator=generator)
    return activations[order], labels[order], direction
