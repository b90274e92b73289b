"""Steering vectors of any kind by one door: read a file, and make the intervention that a mode and a dose ask for."""

import os
from collections.abc import Iterable, Sequence
from typing import Literal, get_args

from interp.errors import CliffscopeError
from interp.models.hooks import Intervention
from interp.models.sites import FINAL_NORM, resid_post
from interp.tensor_files import read_tensors
from interventions.directions.direction import FORMAT as DIRECTION_FORMAT
from interventions.directions.direction import Direction
from interventions.scope import WHOLE
from interventions.steering.along_direction import AblateDirection, AddDirection, ClampDirection
from interventions.steering.site_change import Vector
from interventions.steering.transport import FORMAT as TRANSPORT_FORMAT
from interventions.steering.transport import GaussianMap
from interventions.steering.transport_activations import TransportActivations

Mode = Literal["add", "ablate", "clamp", "transport"]
MODES: tuple[str, ...] = get_args(Mode)


def load_vector(path: str | os.PathLike[str]) -> Direction | GaussianMap:
    """Reads a direction or a transport map, whichever the file holds.

    Raises:
        CliffscopeError: If the file is missing or damaged, or holds neither.
    """
    _, metadata = read_tensors(path)
    form = metadata.get("format", "missing")
    if form == DIRECTION_FORMAT:
        return Direction.load(path)
    if form == TRANSPORT_FORMAT:
        return GaussianMap.load(path)
    raise CliffscopeError(
        f"{path}: no steering vector: its format is {form!r}, expected {DIRECTION_FORMAT!r} or {TRANSPORT_FORMAT!r}; "
        "make one by cliffscope steer fit."
    )


def sites_of(vector: Vector, layers: Iterable[int]) -> tuple[str, ...]:
    """The vector's site at other layers: `blocks.3.hook_resid_post` at layers 1 and 2, for instance.

    Args:
        vector: A direction or map; one without a site is taken to belong to the residual stream after a block.
        layers: Layer indices; −1 is the last.

    Raises:
        CliffscopeError: If the site is in no layer.
    """
    if vector.site is None:
        return tuple(resid_post(layer) for layer in layers)
    parts = vector.site.split(".", 2)
    if vector.site == FINAL_NORM or len(parts) != 3:
        raise CliffscopeError(f"steering: the vector's site {vector.site} is in no layer; leave the layers out.")
    return tuple(f"blocks.{layer}.{parts[2]}" for layer in layers)


def steering(
    vector: Direction | GaussianMap,
    alpha: float | None = None,
    mode: str | None = None,
    sites: Sequence[str] | None = None,
    scope: str = "all",
    units: str = "scale",
    window: tuple[float, float] = WHOLE,
    thinking_tokens: int | None = None,
) -> Intervention:
    """The intervention that a mode and a dose ask for.

    Args:
        vector: A direction, a subspace, or a transport map.
        alpha: The dose. `add`: see `AddDirection`. `clamp`: where the coordinates go: in units of `scale` 0 is the mean
            of the negative class and 1 that of the positive one, `absolute` is the coordinate itself. `ablate` and
            `transport`: the strength, 1 if `None`.
        mode: `add`, `ablate` or `clamp` with a direction, `transport` with a map; `None` adds or transports.
        sites: Where; `None` is the site at which the vector was fitted.
        scope: Where in the text: see `interventions.scope.Scope`, also for the two last.
        units: Of α.
        window: The part of the thinking.
        thinking_tokens: The expected length of the thinking.

    Raises:
        CliffscopeError: If the mode, the dose and the vector do not go together.
    """
    mode = mode or ("add" if isinstance(vector, Direction) else "transport")
    if mode not in MODES:
        raise CliffscopeError(f"mode {mode!r}: expected one of {', '.join(MODES)}.")
    if (mode == "transport") != isinstance(vector, GaussianMap):
        found = "a transport map" if isinstance(vector, GaussianMap) else "a direction"
        good = "transport" if isinstance(vector, GaussianMap) else "add, ablate or clamp"
        raise CliffscopeError(f"mode {mode!r} does not go with {found}; use mode {good}.")
    place = {"sites": sites, "scope": scope, "window": window, "thinking_tokens": thinking_tokens}
    if isinstance(vector, GaussianMap):
        return TransportActivations(vector, 1.0 if alpha is None else alpha, **place)  # type: ignore[arg-type]
    if mode == "ablate":
        return AblateDirection(vector, 1.0 if alpha is None else alpha, **place)  # type: ignore[arg-type]
    if alpha is None:
        raise CliffscopeError(f"mode {mode!r} needs an alpha, the dose.")
    if mode == "clamp":
        return ClampDirection(vector, _clamp_target(vector, alpha, units), **place)  # type: ignore[arg-type]
    return AddDirection(vector, alpha, units, **place)  # type: ignore[arg-type]


def _clamp_target(direction: Direction, alpha: float, units: str) -> float | list[float]:
    if units == "absolute":
        return alpha
    if units != "scale":
        raise CliffscopeError(f"units {units!r}: a coordinate is clamped in units of scale or absolute.")
    if direction.positive is None or direction.negative is None:
        raise CliffscopeError(
            "mode 'clamp': the direction does not say where its classes lie; give the coordinate itself, in absolute "
            "units."
        )
    target: list[float] = (direction.negative + alpha * (direction.positive - direction.negative)).tolist()
    return target
