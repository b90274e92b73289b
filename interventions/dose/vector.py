"""What is dosed: a direction or a transport map, what tells it from others, and random directions as its control."""

import hashlib
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from torch import Tensor

from interp.models.hooks import Intervention
from interventions.directions.direction import Direction
from interventions.dose.options import Cell, DoseOptions, cells
from interventions.steering.transport import GaussianMap
from interventions.steering.vectors import sites_of, steering

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel

Vector = Direction | GaussianMap


def default_mode(vector: Vector) -> str:
    """What is done with a vector where nothing else is said: a direction is added, a map transports."""
    return "add" if isinstance(vector, Direction) else "transport"


def control(vector: Vector, seed: int) -> Direction:
    """A random direction, or a subspace of as many dimensions, with a step of equal norm.

    It has the coordinates of the vector's classes, so that it can be clamped alike. The control of a map is a random
    direction as long as the map's shift of the mean, to be added.
    """
    if isinstance(vector, Direction):
        return vector.random_like(seed).at(positive=vector.positive, negative=vector.negative)
    shift = Direction.of(vector.shift, fingerprint=vector.fingerprint, layer=vector.layer, site=vector.site)
    return shift.random_like(seed)


def in_force(vector: Vector, cell: Cell, options: DoseOptions) -> list[Intervention]:
    """What is in force at a dose of a vector, or of its control; nothing for the unsteered model.

    Raises:
        CliffscopeError: If this vector cannot be used so.
    """
    if cell.layer is None:
        return []
    used, mode = vector, options.mode or default_mode(vector)
    if cell.draw is not None:
        used = control(vector, options.seed + cell.draw)
        mode = "add" if mode == "transport" else mode
    return [steering(used, cell.alpha, mode, sites_of(used, [cell.layer]), options.scope, options.units)]


def check_vector(model: "HookedModel", vector: Vector, options: DoseOptions) -> None:
    """Raises `CliffscopeError` if a vector does not fit a model, a layer, or how it is to be used."""
    for cell in cells(options):
        for intervention in in_force(vector, cell, options):
            intervention.changes(model)


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
