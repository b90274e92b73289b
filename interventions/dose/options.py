"""What a dose-response sweep tries: which layers and doses, how they act, and how answers are generated."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from interp.errors import CliffscopeError
from interp.models.capture import BATCH_TOKENS
from interventions.scope import Scope

CLAMP = "clamp"
"""The mode in which α = 0 is a change as any other, and the size of α is not the size of the change."""


@dataclass(frozen=True)
class DoseOptions:
    """How a dose-response is measured.

    Attributes:
        layers: One cell acts at one of them; indices from 0, each once.
        alphas: Doses: see `interventions.steering.vectors.steering`. Where 0 changes nothing it is left out, because
            the unsteered model is always measured.
        mode: `add`, `ablate`, `clamp` or `transport`; `None` adds a direction and transports by a map.
        scope: Where in the text: see `interventions.scope.Scope`.
        units: What α = 1 is when adding: see `interventions.steering.vectors.steering`.
        controls: Random directions of equal norm that every dose is tried with too.
        max_new_tokens: Of an answer, thinking included.
        temperature: 0 for the most probable token.
        system: A system prompt, if any.
        seed: Of sampling, random directions and intervals.
        batch_tokens: Token budget of a batch when drift and refusal logits are read; changes no result.

    Raises:
        CliffscopeError: If there is no layer, no dose that changes anything, or a value is none that can be.
    """

    layers: tuple[int, ...]
    alphas: tuple[float, ...]
    mode: str | None = None
    scope: str = "all"
    units: str = "scale"
    controls: int = 2
    max_new_tokens: int = 512
    temperature: float = 0.0
    system: str | None = None
    seed: int = 0
    batch_tokens: int = BATCH_TOKENS

    def __post_init__(self) -> None:
        Scope(self.scope)
        if wrong := [alpha for alpha in self.alphas if not math.isfinite(alpha)]:
            raise CliffscopeError(f"dose: α must be a finite number, found {wrong[0]}.")
        alphas = tuple(float(alpha) for alpha in self.alphas if alpha != 0 or self.mode == CLAMP)
        if not alphas:
            raise CliffscopeError("dose: no α other than 0, which changes nothing; give some.")
        if not self.layers:
            raise CliffscopeError("dose: no layers; give some.")
        for name, values in (("layer", self.layers), ("α", alphas)):
            if len(set(values)) < len(values):
                raise CliffscopeError(
                    f"dose: the same {name} is given twice in {', '.join(f'{value:g}' for value in values)}."
                )
        if self.controls < 0:
            raise CliffscopeError(f"dose: the number of controls must be 0 or more, found {self.controls}.")
        object.__setattr__(self, "alphas", alphas)
        object.__setattr__(self, "layers", tuple(self.layers))


@dataclass(frozen=True)
class Cell:
    """One thing to measure.

    Attributes:
        set: `unsteered`, `vector` or `random`.
        draw: Which random direction; `None` for the others.
        layer: `None` for the unsteered model.
        alpha: 0 for the unsteered model.
    """

    set: str
    draw: int | None = None
    layer: int | None = None
    alpha: float = 0.0


def cells(options: DoseOptions) -> Iterator[Cell]:
    """All cells in the order in which they are measured: unsteered, the vector's, then those of the controls."""
    yield Cell("unsteered")
    for draw in (None, *range(options.controls)):
        for layer in options.layers:
            for alpha in options.alphas:
                yield Cell("vector" if draw is None else "random", draw, layer, alpha)


def n_cells(options: DoseOptions) -> int:
    """How many cells there are."""
    return 1 + len(options.layers) * len(options.alphas) * (1 + options.controls)
