"""`GaussianMap`: optimal transport of activations from one class to another in a subspace, and its file.

    T(x) = x + Pᵀ(A − I)P(x − μ_s) + δ

with orthonormal rows P of the subspace and A as in `interventions.steering.optimal_transport` (arXiv 2603.04355: one or
two layers at 40 to 60 % of the depth). What is orthogonal to the subspace keeps its spread. Of the shift δ = μ_t − μ_s
the paper's form takes what lies in the subspace, so a small one may not move the mean at all; here the whole difference
is the default (`shift="full"`), which moves the mean exactly for any k, and `"subspace"` is the other. The share of
the difference that lies in the subspace stands among the facts of the fit.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import CliffscopeError
from interp.fitted_files import fitted_metadata, read_fitted
from interp.models.fingerprint import require_same_model
from interp.tensor_files import write_tensors
from interventions.steering.optimal_transport import (
    Shrinkage,
    distance,
    optimal_map,
    principal_components,
    shrunk_covariances,
)
from probes.inputs import check_activations

FORMAT = "cliffscope.transport"
VERSION = "1"

COMPONENTS = 8
"""Dimensions of the subspace unless told otherwise. What is best is disputed (1–2, 32–64, 256–512): sweep it."""

SHIFTS = ("full", "subspace")

_TENSORS = ("basis", "matrix", "mean", "shift")


@dataclass(frozen=True, eq=False)
class GaussianMap:
    """A map of activations, affine and invertible.

    A fitted map holds float64. Its file holds float32, as all files here do: a map that was read back maps activations
    to within float32's rounding, some 1e-7 of their size, which is also the arithmetic in which a model is changed.

    Attributes:
        basis: Orthonormal rows P of the subspace, float64 on the CPU, like all of its tensors.
        matrix: A, symmetric and positive definite.
        mean: μ_s, the mean of what is moved.
        shift: δ, what is added to all.
        kind: What the classes differ in: `refusal`, or any other word.
        model: Name of the model that it belongs to.
        fingerprint: What the model is (architecture, sizes), to refuse another; empty if unknown.
        layer: Index of the layer, from 0.
        site: TransformerLens name of the site.
        position: Name of the position at which it was fitted.
        training: Facts of the fit that JSON can hold.

    Raises:
        CliffscopeError: If shapes do not fit, a value is NaN or infinite, or A is not symmetric positive definite.
    """

    basis: Float[Tensor, "k d_model"]
    matrix: Float[Tensor, "k k"]
    mean: Float[Tensor, "d_model"]
    shift: Float[Tensor, "d_model"]
    kind: str = "given"
    model: str | None = None
    fingerprint: Mapping[str, str] = field(default_factory=dict)
    layer: int | None = None
    site: str | None = None
    position: str | None = None
    training: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in _TENSORS:
            object.__setattr__(self, name, getattr(self, name).detach().cpu().double())
        _check_shapes({name: getattr(self, name) for name in _TENSORS})
        if not all(bool(torch.isfinite(getattr(self, name)).all()) for name in _TENSORS):
            raise CliffscopeError("transport: the map holds NaN or infinity.")
        if float((self.basis @ self.basis.T - torch.eye(self.k)).abs().max()) > 1e-4:
            raise CliffscopeError("transport: the rows of the basis must be orthonormal.")
        # As its file will hold it: what cannot be read back is refused at once.
        stored = self.matrix.float().double()
        size = float(self.matrix.abs().max())
        if float((self.matrix - self.matrix.T).abs().max()) > 1e-5 * size or (
            float(torch.linalg.eigvalsh(stored)[0]) <= 0
        ):
            raise CliffscopeError(
                "transport: the matrix must be symmetric and positive definite in float32; take fewer components, or "
                "shrinkage nearer to 1."
            )

    @classmethod
    def fit(
        cls,
        source: Float[Tensor, "n d_model"],
        target: Float[Tensor, "m d_model"],
        *,
        components: int = COMPONENTS,
        shrinkage: Shrinkage = "auto",
        shift: str = "full",
        **facts: Any,
    ) -> "GaussianMap":
        """The map from the distribution of one sample to that of another.

        Args:
            source: Activations to be moved, any float type and device.
            target: Activations like which they are to become.
            components: Dimensions of the subspace.
            shrinkage: Share of the pooled covariance in each, or `auto`: see
                `interventions.steering.optimal_transport`.
            shift: Whether the means' difference is taken whole, or as far as it lies in the subspace.
            facts: The provenance among the attributes.

        Raises:
            CliffscopeError: If activations are NaN or infinite or fewer than 2, or vary in fewer directions than
                components are asked for, or a covariance is singular.
        """
        for name, sample in (("source", source), ("target", target)):
            if len(sample) < 2:
                raise CliffscopeError(f"transport: expected 2 or more {name} activations, found {len(sample)}.")
            check_activations(sample)
        if shift not in SHIFTS:
            raise CliffscopeError(f"shift {shift!r}: expected {' or '.join(SHIFTS)}.")
        x, y = source.detach().cpu().double(), target.detach().cpu().double()
        basis, variance = principal_components(torch.cat([x, y]), components)
        sigma_x, sigma_y, shares = shrunk_covariances(x @ basis.T, y @ basis.T, shrinkage)
        difference = y.mean(0) - x.mean(0)
        inside = difference @ basis.T
        length = float(difference.norm())
        training = {
            "n_source": len(x),
            "n_target": len(y),
            "components": components,
            "shrinkage": list(shares),
            "shift": shift,
            "variance_in_subspace": variance,
            "mean_difference": length,
            "mean_difference_in_subspace": float(inside.norm()) / length if length else math.nan,
            "distance_in_subspace": distance(inside, sigma_x, sigma_y),
        }
        return cls(
            basis,
            optimal_map(sigma_x, sigma_y),
            x.mean(0),
            difference if shift == "full" else inside @ basis,
            **{**facts, "training": {**training, **facts.get("training", {})}},
        )

    @classmethod
    def between(
        cls,
        source_mean: Float[Tensor, "d_model"],
        source_covariance: Float[Tensor, "d_model d_model"],
        target_mean: Float[Tensor, "d_model"],
        target_covariance: Float[Tensor, "d_model d_model"],
    ) -> "GaussianMap":
        """The map between two known Gaussians, in the whole space.

        Raises:
            CliffscopeError: If a covariance is singular.
        """
        matrix = optimal_map(source_covariance, target_covariance)
        mean = source_mean.detach().cpu().double()
        return cls(torch.eye(len(mean)), matrix, mean, target_mean.detach().cpu().double() - mean)

    @property
    def k(self) -> int:
        """Dimensions of the subspace."""
        return len(self.basis)

    @property
    def d_model(self) -> int:
        """Width of the activations."""
        return self.basis.shape[1]

    def __call__(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        """T(x) on `x`'s device: in float64 if `x` is, else in float32.

        Raises:
            CliffscopeError: If `x` has another width.
        """
        if x.shape[-1] != self.d_model:
            raise CliffscopeError(
                f"transport: made for activations of width {self.d_model}, found {x.shape[-1]}; is it another model's?"
            )
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        x = x.to(dtype)
        return x + displacement(x, *(part.to(dtype).to(x.device) for part in self.parts()))

    def parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """μ_s, P, (A − I)P and δ: what `displacement` takes."""
        change = self.matrix - torch.eye(self.k, dtype=torch.float64)
        return self.mean, self.basis, change @ self.basis, self.shift

    def inverse(self) -> "GaussianMap":
        """The map back, from target to source, which is also the optimal one.

        It makes a refusing model comply. Use it for the causal test only: that what the map moves is what the behaviour
        hangs on, in both directions.
        """
        matrix = torch.linalg.inv(self.matrix)
        return replace(
            self,
            matrix=(matrix + matrix.T) / 2,
            mean=self.mean + self.shift,
            shift=-self.shift,
            training={**self.training, "inverse": not self.training.get("inverse", False)},
        )

    def random_like(self, seed: int) -> "GaussianMap":
        """A control: the same map turned into random dimensions, which stretches and shifts as much, elsewhere.

        The seed alone decides which (with the width and k), on any machine.
        """
        inside = self.shift @ self.basis.T
        outside = float((self.shift - inside @ self.basis).norm())
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(self.d_model, min(self.k + 1, self.d_model), generator=generator, dtype=torch.float64)
        q, r = torch.linalg.qr(drawn)
        frame = (q * r.diagonal().sign()).T  # QR leaves the signs open
        shift = inside @ frame[: self.k] + outside * frame[-1] * (len(frame) > self.k)
        return replace(
            self,
            basis=frame[: self.k],
            shift=shift,
            kind="random",
            training={"seed": seed, "control_of": f"{self.kind} by transport"},
        )

    def at(self, **place: Any) -> "GaussianMap":
        """A copy with other provenance; `training` is added to the facts there are, `None` keeps an attribute."""
        if place.get("training") is not None:
            place["training"] = {**self.training, **place["training"]}
        return replace(self, **{key: value for key, value in place.items() if value is not None})

    def check_model(self, fingerprint: Mapping[str, str], name: str) -> None:
        """Refuses a model that the map was not made for; one without a fingerprint fits any of its width.

        Raises:
            CliffscopeError: If the fingerprints differ, naming what differs.
        """
        require_same_model("transport map", self.model, self.fingerprint, fingerprint, name, "fit one for this model")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the map as safetensors in float32, atomically; equal maps give equal bytes.

        Raises:
            CliffscopeError: If the file cannot be written or JSON cannot hold the training facts.
        """
        metadata = fitted_metadata(path, FORMAT, VERSION, self) | {"kind": self.kind}
        write_tensors(path, {name: getattr(self, name) for name in _TENSORS}, metadata)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "GaussianMap":
        """Reads a map.

        Raises:
            CliffscopeError: If the file is missing, not safetensors, not a transport map, of another version, or holds
                wrong shapes, NaN, infinity or unreadable metadata.
        """
        tensors, metadata, place = read_fitted(path, "transport map", FORMAT, VERSION)
        try:
            _check_shapes(tensors)
            basis, matrix, mean, shift = (tensors[name] for name in _TENSORS)
            return cls(basis, matrix, mean, shift, kind=metadata.get("kind", "given"), **place)
        except CliffscopeError as error:
            raise CliffscopeError(f"{path}: {error}") from error


def _check_shapes(tensors: Mapping[str, Tensor]) -> None:
    shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
    k, d = (*shapes.get("basis", []), 0, 0)[:2]
    if shapes != {"basis": [k, d], "matrix": [k, k], "mean": [d], "shift": [d]} or not k * d:
        found = ", ".join(f"{name} {shape}" for name, shape in sorted(shapes.items()))
        raise CliffscopeError(
            "transport: expected basis [k, d_model], matrix [k, k], mean [d_model] and shift [d_model], found "
            f"{found or 'no tensors'}; fit it again."
        )


def displacement(
    x: Float[Tensor, "... d_model"],
    mean: Float[Tensor, "d_model"],
    basis: Float[Tensor, "k d_model"],
    change: Float[Tensor, "k d_model"],
    shift: Float[Tensor, "d_model"],
) -> Float[Tensor, "... d_model"]:
    """T(x) − x, from `GaussianMap.parts`."""
    return ((x - mean) @ basis.T) @ change + shift
