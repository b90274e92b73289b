"""Steering along a direction or in a subspace: add to it, remove it, or set its coordinates.

With a basis B (orthonormal rows; one row r̂ for a direction) and the coordinates Bh of an activation h:

    add      h + α·s·û     û = r̂, or Bᵀu for a unit vector u of coordinates; s is a unit of dose
    ablate   h − γ·BᵀBh    directional ablation (Arditi et al. 2024, arXiv 2406.11717); all of it at γ = 1
    clamp    h + Bᵀ(t − Bh)

α is dimensionless: a step of 1 goes as far as one class mean lies from the other (units `scale`), as the activation
itself is long (`norm`: norm-relative, so the same α means the same at every layer and token), or one unit of activation
(`absolute`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import CliffscopeError
from interventions.directions.direction import Direction
from interventions.steering.site_change import SiteChange

Units = Literal["scale", "norm", "absolute"]
UNITS: tuple[str, ...] = get_args(Units)


@dataclass(frozen=True, eq=False)
class AddDirection(SiteChange):
    """Adds a multiple of a direction.

    An α of 0 leaves every value as it is, and `HookedModel.intervene` warns of that.

    Attributes:
        direction: Along which; a subspace needs `along`, or class means, from the negative to the positive one.
        alpha: The dose; negative against the direction.
        units: What a dose of 1 is: `scale`, `norm` or `absolute`.
        along: `[k]`: coordinates of the vector in a subspace; only its direction counts.

    Raises:
        CliffscopeError: If α is NaN or infinite, the units are unknown, or a subspace does not say along what.
    """

    direction: Direction
    alpha: float
    units: str = "scale"
    along: Float[Tensor, "k"] | Sequence[float] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_finite("alpha", self.alpha)
        if self.units not in UNITS:
            raise CliffscopeError(f"units {self.units!r}: expected one of {', '.join(UNITS)}.")
        self._unit_vector()

    @property
    def _vector(self) -> Direction:
        return self.direction

    def _unit_vector(self) -> Float[Tensor, "d_model"]:
        direction = self.direction
        if self.along is not None:
            coordinates = _coordinates("along", self.along, direction.k)
        elif direction.k == 1:
            return direction.vector
        elif direction.positive is not None and direction.negative is not None:
            coordinates = direction.positive - direction.negative
        else:
            raise CliffscopeError(
                f"steering: a subspace of {direction.k} dimensions without class means does not say where to go; give "
                "along, a vector of its coordinates."
            )
        if not float(coordinates.norm()):
            raise CliffscopeError("steering: the vector to add is zero in the subspace; give another along.")
        return coordinates / coordinates.norm() @ direction.basis

    def _constants(self) -> tuple[Tensor, ...]:
        step = self.direction.scale if self.units == "scale" else 1.0
        return (self.alpha * step * self._unit_vector(),)

    def _new(self, value: Float[Tensor, "batch pos d_model"], *constants: Tensor) -> Float[Tensor, "batch pos d_model"]:
        (added,) = constants
        if self.alpha == 0:
            return value
        return value + (value.norm(dim=-1, keepdim=True) * added if self.units == "norm" else added)


@dataclass(frozen=True, eq=False)
class AblateDirection(SiteChange):
    """Removes a direction, or all of a subspace: its coordinates become 0.

    Attributes:
        direction: What is removed.
        strength: How much of it; 1 is all, 2 mirrors the activation.

    Raises:
        CliffscopeError: If the strength is NaN or infinite.
    """

    direction: Direction
    strength: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_finite("strength", self.strength)

    @property
    def _vector(self) -> Direction:
        return self.direction

    def _constants(self) -> tuple[Tensor, ...]:
        return (self.direction.basis,)

    def _new(self, value: Float[Tensor, "batch pos d_model"], *constants: Tensor) -> Float[Tensor, "batch pos d_model"]:
        (basis,) = constants
        return value - self.strength * (value @ basis.T) @ basis


@dataclass(frozen=True, eq=False)
class ClampDirection(SiteChange):
    """Sets the coordinates of a direction or subspace, whatever they were.

    Attributes:
        direction: Whose coordinates.
        target: What they become: a number for a direction, `[k]` numbers for a subspace, or `positive` or `negative`
            for that class' mean.

    Raises:
        CliffscopeError: If there are not k finite numbers, or the class mean is not known.
    """

    direction: Direction
    target: float | Sequence[float] | Float[Tensor, "k"] | str

    def __post_init__(self) -> None:
        super().__post_init__()
        self._target()

    @property
    def _vector(self) -> Direction:
        return self.direction

    def _target(self) -> Float[Tensor, "k"]:
        if not isinstance(self.target, str):
            return _coordinates("target", self.target, self.direction.k)
        if self.target not in ("positive", "negative"):
            raise CliffscopeError(f"target {self.target!r}: expected positive, negative, or numbers.")
        mean: Tensor | None = getattr(self.direction, self.target)
        if mean is None:
            raise CliffscopeError(
                f"target: the direction does not say where its {self.target} class lies; give numbers."
            )
        return mean

    def _constants(self) -> tuple[Tensor, ...]:
        return self.direction.basis, self._target()

    def _new(self, value: Float[Tensor, "batch pos d_model"], *constants: Tensor) -> Float[Tensor, "batch pos d_model"]:
        basis, target = constants
        return value + (target - value @ basis.T) @ basis


def check_finite(what: str, number: float) -> None:
    """Raises `CliffscopeError` if a dose is NaN or infinite."""
    if not math.isfinite(number):
        raise CliffscopeError(f"{what}: expected a finite number, found {number}.")


def _coordinates(what: str, given: float | Sequence[float] | Tensor, k: int) -> Float[Tensor, "k"]:
    found = torch.as_tensor(given, dtype=torch.float32, device="cpu").detach()
    found = found[None] if found.ndim == 0 else found
    if found.shape != (k,) or not bool(torch.isfinite(found).all()):
        raise CliffscopeError(
            f"{what}: expected {k} finite {'number' if k == 1 else 'numbers'}, one a dimension of the subspace, found "
            f"{found.tolist()}."
        )
    return found
