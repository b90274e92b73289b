"""How well an autoencoder renders activations, and how often its latents are active."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.models.capture import BATCH_TOKENS
from interp.transcripts import Transcript
from interventions.latents.latents import Latents
from interventions.latents.tokens import read_tokens

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel


@dataclass(frozen=True)
class Reconstruction:
    """How well an autoencoder renders activations.

    Attributes:
        explained: The share of their variance that the reconstruction explains; NaN for fewer than two tokens.
        l0: Latents active at a token, in the mean.
        silent: Share of the latents active at none of the tokens.
        tokens: How many.
    """

    explained: float
    l0: float
    silent: float
    tokens: int


class Tally:
    """Counts, over tokens, how often each latent is active and how much of the variance is explained."""

    def __init__(self, latents: Latents) -> None:
        self._latents = latents
        self.fired = torch.zeros(latents.n_latents, dtype=torch.long)
        self.n = 0
        self._sum = torch.zeros(latents.d_in, dtype=torch.float64)
        self._squares = 0.0
        self._errors = 0.0

    def add(self, h: Float[Tensor, "token ..."]) -> None:
        """Takes in some tokens."""
        if not len(h):
            return
        self.fired += (self._latents.encode(h) != 0).sum(0).cpu()
        flat, made = (part.flatten(1).float().cpu().double() for part in (h, self._latents.reconstruct(h)))
        self.n += len(h)
        self._sum += flat.sum(0)
        self._squares += float(flat.square().sum())
        self._errors += float((flat - made).square().sum())

    @property
    def shares(self) -> Float[np.ndarray, " latent"]:
        """The share of tokens at which each latent is active; NaN without tokens."""
        return self.fired.numpy() / self.n if self.n else np.full(len(self.fired), np.nan)

    @property
    def reconstruction(self) -> Reconstruction:
        """The figures."""
        variance = self._squares - float(self._sum.square().sum()) / max(1, self.n)
        explained = 1 - self._errors / variance if variance > 0 else float("nan")
        l0 = float(self.fired.sum()) / self.n if self.n else float("nan")
        silent = float((self.fired == 0).double().mean()) if self.n else float("nan")
        return Reconstruction(explained, l0, silent, self.n)


def reconstruction(
    model: "HookedModel",
    latents: Latents,
    transcripts: Sequence[Transcript],
    places: Sequence[Sequence[int]],
    *,
    batch_tokens: int = BATCH_TOKENS,
) -> Reconstruction:
    """How well an autoencoder renders some tokens of transcripts, given by their indices."""
    tally = Tally(latents)
    for _, h in read_tokens(model, transcripts, places, latents.site, batch_tokens):
        tally.add(h)
    return tally.reconstruction
