"""Activations moved by a transport map: from one class towards another, all the way or a part of it."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from interventions.steering.along_direction import check_finite
from interventions.steering.site_change import SiteChange
from interventions.steering.transport import GaussianMap, displacement


@dataclass(frozen=True, eq=False)
class TransportActivations(SiteChange):
    """Replaces x by x + strength·(T(x) − x), in float32.

    Attributes:
        map: T.
        strength: 1 is the whole way; between 0 and 1 along the straight line there, which for the optimal map is the
            shortest path between the two distributions.

    Raises:
        CliffscopeError: If the strength is NaN or infinite.
    """

    map: GaussianMap
    strength: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_finite("strength", self.strength)

    @property
    def _vector(self) -> GaussianMap:
        return self.map

    def _constants(self) -> tuple[Tensor, ...]:
        mean, basis, change, shift = self.map.parts()
        return mean, basis, self.strength * change, self.strength * shift

    def _new(self, value: Float[Tensor, "batch pos d_model"], *constants: Tensor) -> Float[Tensor, "batch pos d_model"]:
        return value + displacement(value, *constants)
