"""The control of every finding with an autoencoder: one that was never trained, put through the same search.

Its latents are random directions, each with a bias that makes it active at the same share of tokens as one latent of
the trained autoencoder, so that it differs in what it learned and not in how sparse it is. Where activations differ
much between two classes, random directions separate them too: a latent's AUROC means something only beyond theirs.
Heap et al. 2025 (arXiv 2501.17727) make the same point with autoencoders trained on random models.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interventions.latents.latents import Latents
from interventions.latents.library import sae_lens, seeded

_CHUNK = 2048
"""Latents whose thresholds are found at once."""


def untrained_like(
    latents: Latents, sample: Float[Tensor, "token ..."], shares: Float[np.ndarray, " latent"], seed: int = 0
) -> Latents:
    """An autoencoder of the same width and sparsity with random directions in place of learned ones.

    Args:
        latents: The trained one.
        sample: Activations of ordinary tokens at its site, from which the thresholds are found.
        shares: The share of ordinary tokens at which each trained latent is active.
        seed: Of the directions.
    """
    library = sae_lens()
    h = sample.flatten(1).float().cpu()
    mean = h.mean(0)
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(latents.n_latents, latents.d_in, generator=generator)
    directions = directions / directions.norm(dim=-1, keepdim=True)
    with seeded(seed):
        sae = library.StandardSAE(library.StandardSAEConfig(d_in=latents.d_in, d_sae=latents.n_latents))
    bias = [
        _thresholds((h - mean) @ directions[start : start + _CHUNK].T, shares[start : start + _CHUNK])
        for start in range(0, latents.n_latents, _CHUNK)
    ]
    with torch.no_grad():
        sae.W_dec.copy_(directions)
        sae.W_enc.copy_(directions.T)
        sae.b_dec.copy_(mean)
        sae.b_enc.copy_(-torch.cat(bias))
    return Latents(sae, latents.site, "an untrained SAE", latents.model, latents.fingerprint, {"seed": seed})


def _thresholds(
    projections: Float[Tensor, "token chosen"], shares: Float[np.ndarray, " chosen"]
) -> Float[Tensor, " chosen"]:
    """For each column a value that the given share of tokens lies above, as nearly as equal tokens allow."""
    ordered = projections.sort(dim=0, descending=True).values
    n = len(ordered)
    wanted = torch.from_numpy(np.round(np.clip(shares, 0, 1) * n).astype(np.int64))
    at = ordered.gather(0, wanted.clamp(max=n - 1)[None])
    # Tokens that are equal lie above together, or not at all: the same words stand in the same places of many texts.
    before, through = (ordered > at).sum(0), (ordered >= at).sum(0)
    above = torch.where(through - wanted < wanted - before, through, before)
    # Half-way to the next value, so that rounding decides nothing.
    fence = torch.cat([ordered[:1] + 1, ordered, ordered[-1:] - 1])
    return ((fence.gather(0, above[None]) + fence.gather(0, above[None] + 1)) / 2)[0]
