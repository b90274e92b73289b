"""`Latents`: a sparse autoencoder at a site of a model, used through its own encode and decode alone.

So every architecture that sae-lens loads works, with whatever it does on the way: normalizing its input, taking its
decoder's bias off first, rescaling by decoder norms. A change of latents f → f' is written into the activation as its
decoded difference, h + decode(f') − decode(f): what the autoencoder does not reconstruct stays as it was (the error
term of Marks et al. 2024, arXiv 2403.19647).
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import save
from torch import Tensor

from interp.errors import CliffscopeError
from interp.files import write_together
from interp.models.sites import Site
from interventions.directions.direction import Direction

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
"""The two files of sae-lens' own format."""

_ENTRIES = 2**25
"""Most latent values held at once: what bounds the memory of a wide autoencoder."""


@dataclass(frozen=True, eq=False)
class Latents:
    """An autoencoder at a site.

    Attributes:
        sae: The `sae_lens.SAE`; its weights are not trained any further.
        site: Where it reads and writes.
        source: What it was loaded from, for messages.
        model: Name of the model at hand.
        fingerprint: What that model is.
        facts: What is known of its training, as JSON holds it; empty if it was not trained here.
        remarks: What a user should know before trusting it, in sentences.
    """

    sae: Any
    site: str
    source: str
    model: str | None = None
    fingerprint: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.sae.requires_grad_(False)
        self.sae.eval()

    @property
    def n_latents(self) -> int:
        """The autoencoder's width."""
        return int(self.sae.cfg.d_sae)

    @property
    def d_in(self) -> int:
        """Width of the activations."""
        return int(self.sae.cfg.d_in)

    @cached_property
    def digest(self) -> str:
        """A hash of the weights, in eight characters: two autoencoders with the same one are the same."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.sae.state_dict().items()):
            digest.update(f"{name}{list(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().float().contiguous().numpy().astype("<f4").tobytes())
        return digest.hexdigest()[:8]

    def require(self, latent: int) -> int:
        """The index of a latent. Raises `CliffscopeError` if there is no such latent."""
        if not 0 <= latent < self.n_latents:
            raise CliffscopeError(f"there is no latent {latent}: {self.source} has latents 0 to {self.n_latents - 1}.")
        return latent

    def encode(self, h: Float[Tensor, "token ..."]) -> Float[Tensor, "token latent"]:
        """How active each latent is at each token, in float32 on `h`'s device.

        Args:
            h: `[token, d_in]`, or `[token, head, d_head]` at `attn.hook_z`.
        """
        if not len(h):
            return h.new_zeros(0, self.n_latents, dtype=torch.float32)
        return torch.cat([self._encoded(part).float() for part in h.split(self._rows)])

    def reconstruct(self, h: Float[Tensor, "token ..."]) -> Float[Tensor, "token ..."]:
        """What the autoencoder makes of an activation, in float32."""
        if not len(h):
            return h.float()
        return torch.cat(
            [self.sae.decode(self._encoded(part)).float().reshape(part.shape) for part in h.split(self._rows)]
        )

    def decoded_difference(
        self, h: Float[Tensor, "token ..."], change: Callable[[Tensor], Tensor]
    ) -> Float[Tensor, "token ..."]:
        """decode(f') − decode(f) in float32, exactly 0 at tokens at which the change leaves f as it is.

        Args:
            h: Activations, as for `encode`.
            change: Makes f' `[token, latent]` of f, without writing to it.
        """
        if not len(h):
            return h.float()
        return torch.cat([self._difference(part, change) for part in h.split(self._rows)])

    def step(self, latent: int) -> Float[Tensor, "d_in"]:
        """What one unit of a latent's activation writes, for an autoencoder that decodes linearly; on the CPU."""
        row: Tensor = self.sae.W_dec[self.require(latent)].detach().float().cpu()
        if getattr(self.sae.cfg, "rescale_acts_by_decoder_norm", False):
            row = row / row.norm()
        return row

    def direction(self, latent: int, *, scale: float | None = None, kind: str = "given", sign: int = 1) -> Direction:
        """A latent's decoder row as a direction, so that all that is done with directions can be done with it.

        Args:
            latent: Which.
            scale: Size of one step; what one unit of the latent's activation writes if `None`.
            kind: What it stands for.
            sign: −1 turns it round: away from the latent.

        Raises:
            CliffscopeError: If there is no such latent, its decoder row is zero, or the site holds heads.
        """
        row = sign * self.step(latent)
        layer, name = self._place
        if name == "attn.hook_z":
            raise CliffscopeError(f"{self.source}: a latent at {self.site} is no direction of the model's width.")
        if not float(row.norm()):
            raise CliffscopeError(f"{self.source}: latent {latent} has a decoder row of zeros and no direction.")
        training = {"latent": latent, "sae": self.source, "sae_digest": self.digest, "sign": sign}
        return Direction.of(
            row,
            scale=scale,
            kind=kind,
            method="latent",
            model=self.model,
            fingerprint=self.fingerprint,
            layer=layer,
            site=self.site,
            training=training,
        )

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes sae-lens' own format, both files or none; `sae_lens.SAE.load_from_disk` reads it.

        Raises:
            CliffscopeError: If it cannot be written.
        """
        folder = Path(folder)
        # What `sae.save_model` writes, without a first copy on the disk.
        state = self.sae.state_dict()
        self.sae.process_state_dict_for_saving(state)
        contents = {WEIGHTS: save(state), CONFIG: json.dumps(self.sae.cfg.to_dict()).encode()}
        write_together({folder / name: _writer(content) for name, content in contents.items()})

    @property
    def _rows(self) -> int:
        return max(1, _ENTRIES // self.n_latents)

    @property
    def _place(self) -> tuple[int | None, str]:
        # The site is canonical: it has no negative layer.
        site = Site.parse(self.site, int(self.fingerprint.get("n_layers", 2**31)))
        return site.layer, site.name

    def _encoded(self, h: Tensor) -> Tensor:
        if self.sae.W_dec.device != h.device:
            self.sae.to(h.device)
        if h.ndim > 2 and not self.sae.hook_z_reshaping_mode:
            h = h.flatten(1)
        found: Tensor = self.sae.encode(h)
        return found.to_dense() if found.is_sparse else found

    def _difference(self, h: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        before = self._encoded(h)
        after = change(before)
        # Together: an autoencoder that normalizes keeps each token's norm from encode for one decode.
        new, old = self.sae.decode(torch.stack([after, before])).float()
        moved = (after != before).any(-1)
        difference: Tensor = (new - old).reshape(h.shape)
        return torch.where(moved.reshape(-1, *[1] * (h.ndim - 1)), difference, 0.0)


def _writer(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)
