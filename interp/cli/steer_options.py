"""The options of steering vectors, which several commands share, and what they stand for once a model is loaded."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.errors import CliffscopeError

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel
    from interp.models.hooks import Intervention


class Mode(StrEnum):
    """What is done with a vector."""

    ADD = "add"
    ABLATE = "ablate"
    CLAMP = "clamp"
    TRANSPORT = "transport"


class Units(StrEnum):
    """What a dose of 1 is."""

    SCALE = "scale"
    NORM = "norm"
    ABSOLUTE = "absolute"


Vector = Annotated[
    Path, typer.Option("--vector", help="A direction or transport map made by `cliffscope steer fit` or `choose`.")
]
OptionalVector = Annotated[
    Path | None, typer.Option("--vector", help="A steering vector made by `cliffscope steer fit`, active throughout.")
]
Alpha = Annotated[float | None, typer.Option("--alpha", help="The dose; negative goes against the direction.")]
Layer = Annotated[
    str | None,
    typer.Option("--layer", help="Where to steer: a layer, or several separated by commas; the vector's own if none."),
]
HowToSteer = Annotated[
    Mode | None, typer.Option("--mode", help="A direction is added if not told otherwise; a map only transports.")
]
Scope = Annotated[
    str,
    typer.Option(
        "--scope",
        help="Where in the text: all, edge, from-edge, thinking, response, …; thinking:0.8-1@300 is the last fifth of "
        "some 300 tokens of thinking.",
    ),
]
DoseUnits = Annotated[
    Units,
    typer.Option("--units", help="A dose of 1: the distance of the class means, the activation's norm, or 1 as it is."),
]


@dataclass(frozen=True)
class Steering:
    """What the options say, checked as far as it can be before a model is loaded.

    Attributes:
        path: The vector's file.
        alpha, layer, mode, scope, units: As given.
    """

    path: Path
    alpha: float | None = None
    layer: str | None = None
    mode: Mode | None = None
    scope: str = "all"
    units: Units = Units.SCALE

    @classmethod
    def asked(cls, path: Path | None, *given: Any) -> "Steering | None":
        """From options in the order of the attributes; `None` without a vector.

        Raises:
            CliffscopeError: If there is an option but no vector, or as `read`.
        """
        if path is not None:
            made = cls(path, *given)
            made.read()
            return made
        for name, value, default in zip(
            ("alpha", "layer", "mode", "scope"), given, (None, None, None, "all"), strict=False
        ):
            if value != default:
                raise CliffscopeError(f"--{name} says how to steer, and there is no --vector to steer along.")
        return None

    def read(self) -> Any:
        """The vector.

        Raises:
            CliffscopeError: If the file holds none, or mode, dose, scope and units do not go with it.
        """
        from interp.cli.session import about
        from interventions.steering.vectors import load_vector, steering

        vector = load_vector(self.path)
        with about(self.path):
            steering(vector, self.alpha, self.mode and self.mode.value, scope=self.scope, units=self.units.value)
        return vector

    def on(self, model: "HookedModel") -> "tuple[str, Intervention, dict[str, Any]]":
        """A name that tells it from any other steering, the intervention, and what to put down of it.

        Raises:
            CliffscopeError: If the vector is for another model, or the model has no such layer or site.
        """
        import hashlib

        from interp.cli.session import about, parse_layers
        from interventions.dose.vector import default_mode
        from interventions.steering.vectors import sites_of, steering

        digest, vector = hashlib.sha256(self.path.read_bytes()).hexdigest(), self.read()
        mode = default_mode(vector) if self.mode is None else self.mode.value
        layers = None if self.layer is None else parse_layers(self.layer, model.n_layers, "--layer")
        with about(self.path):
            sites = None if layers is None else sites_of(vector, layers)
            made = steering(vector, self.alpha, mode, sites, self.scope, self.units.value)
            places = ",".join(made.changes(model))
        dose = ("" if self.alpha is None else f" {self.alpha!r}") + (
            f" {self.units}" if mode in ("add", "clamp") else ""
        )
        facts = {name: getattr(self, name) for name in ("alpha", "units", "scope")}
        name = f"vector {digest[:8]} {mode}{dose} at {places} in {self.scope}"
        return name, made, {"vector": {"sha256": digest, "mode": mode, "sites": places, **facts}}
