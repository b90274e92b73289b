"""A direction, or a subspace, in a model's activations, and its file.

The unit vectors and the size of one step are kept apart: what a direction *is* does not depend on how far one goes
along it. Coordinates are computed in float32 whatever the activations' type.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.display.shown import Shown, Words
from interp.errors import CliffscopeError
from interp.fitted_files import fitted_metadata, read_fitted
from interp.models.fingerprint import require_same_model
from interp.tensor_files import write_tensors

FORMAT = "cliffscope.direction"
VERSION = "1"

_ORTHONORMAL = 1e-4
"""Largest error of a basis' Gram matrix: float32 rounding at any width stays far below it."""


@dataclass(frozen=True, eq=False, repr=False)
class Direction(Shown):
    """Orthonormal vectors in activation space, with the size of one step along them.

    Attributes:
        basis: Orthonormal rows, float32 on the CPU; one row is a direction, more are a subspace.
        scale: One step: the distance of the two classes' means in the basis, in activation units; above 0.
        kind: What it stands for: `refusal`, `harmfulness`, `random`, or any other word.
        method: How it was found: `mean-difference`, `probe`, `discriminant`, `paired-pca`, `das`, `random`, `latent`,
            `given`.
        positive, negative: `[k]`: the two classes' mean coordinates in the basis, where they are known.
        model: Name of the model that it belongs to.
        fingerprint: What the model is (architecture, sizes), to refuse another; empty if unknown.
        layer: Index of the layer, from 0; `None` for a site that is in no layer.
        site: TransformerLens name of the site.
        position: Name of the position at which it was fitted.
        training: Facts of the fit that JSON can hold (contrast, counts, seed, held-out figures, …).

    Raises:
        CliffscopeError: If the basis is not orthonormal, a value is NaN or infinite, or a shape does not fit.
    """

    basis: Float[Tensor, "k d_model"]
    scale: float = 1.0
    kind: str = "given"
    method: str = "given"
    positive: Float[Tensor, "k"] | None = None
    negative: Float[Tensor, "k"] | None = None
    model: str | None = None
    fingerprint: Mapping[str, str] = field(default_factory=dict)
    layer: int | None = None
    site: str | None = None
    position: str | None = None
    training: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        basis = _float32(self.basis)
        if basis.ndim != 2 or not basis.numel():
            raise CliffscopeError(f"direction: expected a basis of shape [k, d_model], found {list(basis.shape)}.")
        _check_orthonormal(basis)
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise CliffscopeError(f"direction: the scale must be a finite number above 0, found {self.scale}.")
        object.__setattr__(self, "basis", basis)
        # The file holds float32; the direction in memory must not differ from the one read back.
        object.__setattr__(self, "scale", float(torch.tensor(self.scale, dtype=torch.float32)))
        for name in ("positive", "negative"):
            if (value := getattr(self, name)) is None:
                continue
            value = _float32(value)
            if value.shape != basis.shape[:1] or not bool(torch.isfinite(value).all()):
                raise CliffscopeError(
                    f"direction: expected {len(basis)} finite {name} coordinates, found {value.tolist()}."
                )
            object.__setattr__(self, name, value)

    @classmethod
    def of(
        cls, vectors: Float[Tensor, "d_model"] | Float[Tensor, "k d_model"], *, scale: float | None = None, **facts: Any
    ) -> "Direction":
        """The direction of a vector, or the subspace that several span, orthonormalized in their order.

        Args:
            vectors: Any float type and device; need not be of unit norm.
            scale: Size of one step; the norm of the (first) vector if `None`.
            facts: The other attributes.

        Raises:
            CliffscopeError: If a vector is zero, NaN or infinite, or depends linearly on the others.
        """
        rows = vectors.detach().to(device="cpu").double()
        rows = rows[None] if rows.ndim == 1 else rows
        if rows.ndim != 2 or not rows.numel() or not bool(torch.isfinite(rows).all()):
            raise CliffscopeError(f"direction: expected finite vectors [k, d_model], found {list(vectors.shape)}.")
        norms = rows.norm(dim=-1)
        if bool((norms == 0).any()):
            raise CliffscopeError("direction: a vector is zero and has no direction.")
        q, r = torch.linalg.qr((rows / norms[:, None]).T)
        if len(rows) > rows.shape[1] or float(r.diagonal().abs().min()) < 1e-6:
            raise CliffscopeError(f"direction: the {len(rows)} vectors are linearly dependent; leave some out.")
        # QR leaves the signs open: each row points to its own vector's side.
        basis = (q * r.diagonal().sign()).T
        return cls(basis.float(), float(norms[0]) if scale is None else scale, **facts)

    @property
    def k(self) -> int:
        """Dimensions of the subspace; 1 for a direction."""
        return len(self.basis)

    @property
    def d_model(self) -> int:
        """Width of the activations."""
        return self.basis.shape[1]

    @property
    def vector(self) -> Float[Tensor, "d_model"]:
        """The unit vector.

        Raises:
            CliffscopeError: If this is a subspace of more than one dimension.
        """
        if self.k != 1:
            raise CliffscopeError(f"direction: a subspace of {self.k} dimensions has no one vector; use its basis.")
        return self.basis[0]

    def coordinates(self, h: Float[Tensor, "... d_model"]) -> Float[Tensor, "... k"]:
        """The coordinates of `h` in the basis, in float32 on `h`'s device.

        Raises:
            CliffscopeError: If `h` has another width.
        """
        if h.shape[-1] != self.d_model:
            raise CliffscopeError(
                f"direction: made for activations of width {self.d_model}, found {h.shape[-1]}; is it another model's?"
            )
        return h.float() @ self.basis.to(h.device).T

    def project(self, h: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        """The part of `h` that lies in the subspace, in float32 on `h`'s device.

        Raises:
            CliffscopeError: If `h` has another width.
        """
        return self.coordinates(h) @ self.basis.to(h.device)

    def random_like(self, seed: int) -> "Direction":
        """A control: as many random orthonormal vectors at the same place, with the same step.

        The seed alone decides which (with the width and k), on any machine.
        """
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(self.k, self.d_model, generator=generator, dtype=torch.float64)
        return Direction.of(
            drawn,
            scale=self.scale,
            kind="random",
            method="random",
            model=self.model,
            fingerprint=self.fingerprint,
            layer=self.layer,
            site=self.site,
            position=self.position,
            training={"seed": seed, "control_of": f"{self.kind} by {self.method}"},
        )

    def at(self, **place: Any) -> "Direction":
        """A copy with other attributes; `training` is added to the facts there are, `None` keeps an attribute."""
        if place.get("training") is not None:
            place["training"] = {**self.training, **place["training"]}
        return replace(self, **{key: value for key, value in place.items() if value is not None})

    def check_model(self, fingerprint: Mapping[str, str], name: str) -> None:
        """Refuses a model that the direction was not made for; one without a fingerprint fits any of its width.

        Raises:
            CliffscopeError: If the fingerprints differ, naming what differs, or the width does.
        """
        require_same_model("direction", self.model, self.fingerprint, fingerprint, name, "fit one for this model")
        if "d_model" in fingerprint and fingerprint["d_model"] != str(self.d_model):
            raise CliffscopeError(
                f"direction: of width {self.d_model}, and {name} has width {fingerprint['d_model']}; "
                "fit one for this model."
            )

    def words(self) -> Words:
        """What it stands for, how it was found, and where it belongs."""
        k, d_model = self.basis.shape
        kind = "Direction" if k == 1 else f"Subspace of {k} directions"
        where = f"{self.site or 'no site'} at {self.position or 'no position'}"
        head = f"{self.kind} by {self.method}, {where}, d_model {d_model:,}, one step {self.scale:.3g}"
        return Words(f"{kind} for {self.model or 'an unnamed model'}", head)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the direction as safetensors, atomically; equal directions give equal bytes.

        Raises:
            CliffscopeError: If the file cannot be written or JSON cannot hold the training facts.
        """
        metadata = fitted_metadata(path, FORMAT, VERSION, self) | {"kind": self.kind, "method": self.method}
        tensors = {"basis": self.basis, "scale": torch.tensor(self.scale)}
        for name in ("positive", "negative"):
            if (value := getattr(self, name)) is not None:
                tensors[name] = value
        write_tensors(path, tensors, metadata)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Direction":
        """Reads a direction.

        Raises:
            CliffscopeError: If the file is missing, not safetensors, not a direction, of another version, or holds
                wrong shapes, NaN, infinity or unreadable metadata.
        """
        tensors, metadata, place = read_fitted(path, "direction", FORMAT, VERSION)
        if not {"basis", "scale"} <= set(tensors) <= {"basis", "scale", "positive", "negative"} or (
            tensors["basis"].ndim != 2 or tensors["scale"].ndim != 0
        ):
            found = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in sorted(tensors.items()))
            raise CliffscopeError(
                f"{path}: expected basis [k, d_model] and scale [], found {found or 'no tensors'}; fit it again."
            )
        try:
            return cls(
                tensors["basis"],
                float(tensors["scale"]),
                kind=metadata.get("kind", "given"),
                method=metadata.get("method", "given"),
                positive=tensors.get("positive"),
                negative=tensors.get("negative"),
                **place,
            )
        except CliffscopeError as error:
            raise CliffscopeError(f"{path}: {error}") from error


def _float32(values: Tensor) -> Tensor:
    return values.detach().to(device="cpu", dtype=torch.float32)


def _check_orthonormal(basis: Float[Tensor, "k d_model"]) -> None:
    if not bool(torch.isfinite(basis).all()):
        raise CliffscopeError("direction: the basis holds NaN or infinity.")
    rows = basis.double()
    error = float((rows @ rows.T - torch.eye(len(rows), dtype=torch.float64)).abs().max())
    if error > _ORTHONORMAL:
        raise CliffscopeError(
            f"direction: the rows of the basis must be orthonormal (off by {error:.2g}); make it by Direction.of."
        )
