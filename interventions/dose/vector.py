"""What is dosed: a direction or a transport map, what tells it from others, and random directions as its control."""

import hashlib
from dataclasses import fields
from typing import Any

from torch import Tensor

from interventions.directions.direction import Direction
from interventions.steering.transport import GaussianMap

Vector = Direction | GaussianMap


def control(vector: Vector, seed: int) -> Direction:
    """A random direction, or a subspace of as many dimensions, with a step of equal norm.

    It has the coordinates of the vector's classes, so that it can be clamped alike. The control of a map is a random
    direction as long as the map's shift of the mean, to be added.
    """
    if isinstance(vector, Direction):
        return vector.random_like(seed).at(positive=vector.positive, negative=vector.negative)
    shift = Direction.of(vector.shift, fingerprint=vector.fingerprint, layer=vector.layer, site=vector.site)
    return shift.random_like(seed)


def vector_facts(vector: Vector) -> dict[str, Any]:
    """What a vector is, with a hash of all its numbers."""
    digest = hashlib.sha256(type(vector).__name__.encode())
    for field in sorted(fields(vector), key=lambda field: field.name):
        value = getattr(vector, field.name)
        if isinstance(value, Tensor):
            digest.update(f"{field.name} {tuple(value.shape)}\n".encode() + value.numpy().tobytes())
        elif isinstance(value, float):
            digest.update(f"{field.name} {value!r}\n".encode())
    told = {name: getattr(vector, name, None) for name in ("kind", "method", "layer", "site", "position")}
    return {**told, "sha256": digest.hexdigest()}
