"""Interventions on latents: ablate them, clamp them to a value, or add to them.

Each writes its decoded difference into the activation, so that the autoencoder's reconstruction error is kept, and a
token at which no latent moves keeps its value bit by bit. The first token of a text (BOS where the model has one) is
left alone unless asked for: its activations are unlike all others, and latents fire on it that mean nothing there.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.errors import CliffscopeError
from interp.models.fingerprint import require_same_model
from interp.models.hooks import Change
from interp.models.token_context import TokenContext
from interventions.latents.latents import Latents
from interventions.scope import Scope
from interventions.steering.along_direction import check_finite

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel


@dataclass
class Activity:
    """What a change has done so far.

    Attributes:
        passes: Forward passes in which it was active.
        tokens: In its scope.
        changed: Of these, those at which the activation became another.
    """

    passes: int = 0
    tokens: int = 0
    changed: int = 0


@dataclass(frozen=True, eq=False)
class LatentChange(ABC):
    """Changes latents at the tokens of a scope; one subclass for each kind of change.

    Attributes:
        latents: The autoencoder at its site.
        which: The latents that are changed.
        scope: Where in the text, as one word: see `interventions.scope.Scope`.
        first_token: Whether the first token of a text is changed too.
        activity: Counts what was done, where one is given.

    Raises:
        CliffscopeError: If there is no such latent or scope.
    """

    latents: Latents
    which: int | Sequence[int]
    scope: str = field(default="all", kw_only=True)
    first_token: bool = field(default=False, kw_only=True)
    activity: Activity | None = field(default=None, kw_only=True, repr=False)

    def __post_init__(self) -> None:
        given = (self.which,) if isinstance(self.which, int) else tuple(int(latent) for latent in self.which)
        if not given or len(set(given)) < len(given):
            raise CliffscopeError(f"latents: expected at least one, each once, found {list(given)}.")
        for latent in given:
            self.latents.require(latent)
        object.__setattr__(self, "which", given)
        Scope(self.scope)

    def changes(self, model: "HookedModel") -> Mapping[str, Change]:
        """One change, at the autoencoder's site.

        Raises:
            CliffscopeError: If the autoencoder was put onto another model.
        """
        mine = self.latents
        advice = "load the SAE onto this model"
        require_same_model(mine.source, mine.model, mine.fingerprint, model.fingerprint, model.name, advice)
        return {mine.site: self._change}

    def summary(self) -> dict[str, Any]:
        """What is changed, as JSON holds it."""
        return {
            "change": self.verb,
            "latents": list(self._indices),
            **self._dose(),
            "scope": str(Scope(self.scope)),
            "first_token": self.first_token,
            "site": self.latents.site,
            "sae": self.latents.digest,
        }

    def __str__(self) -> str:
        """In a few words, for the name of a model that has it: `latent 17 clamp 8`."""
        dose = "".join(f" {value!r}" for value in self._dose().values())
        plural = "s" if len(self._indices) > 1 else ""
        return f"latent{plural} {','.join(map(str, self._indices))} {self.verb}{dose}"

    def _change(self, value: Float[Tensor, "batch pos ..."], tokens: TokenContext) -> Float[Tensor, "batch pos ..."]:
        where = self._where(tokens)
        h = value[where]
        if self.activity is not None:
            self.activity.passes += 1
            self.activity.tokens += len(h)
        if not len(h):
            return value
        new = (h.float() + self.latents.decoded_difference(h, self._moved)).to(value.dtype)
        if self.activity is not None:
            self.activity.changed += int((new != h).flatten(1).any(-1).sum())
        changed = value.clone()
        changed[where] = new
        return changed

    def _where(self, tokens: TokenContext) -> Bool[Tensor, "batch pos"]:
        where = Scope(self.scope).mask(tokens)
        return where if self.first_token else where & (tokens.index > 0)

    def _moved(self, f: Float[Tensor, "token latent"]) -> Float[Tensor, "token latent"]:
        moved = f.clone()
        indices = torch.tensor(self._indices, device=f.device)
        moved[:, indices] = self._new(f[:, indices])
        return moved

    @property
    def _indices(self) -> tuple[int, ...]:
        assert isinstance(self.which, tuple)
        return self.which

    @property
    @abstractmethod
    def verb(self) -> str:
        """What is done, in a word."""

    @property
    @abstractmethod
    def idle(self) -> str:
        """Why it may have changed nothing, after "latents 17"."""

    def _dose(self) -> dict[str, float]:
        return {}

    @abstractmethod
    def _new(self, f: Float[Tensor, "token chosen"]) -> Float[Tensor, "token chosen"]:
        """What the chosen latents' activations become."""


@dataclass(frozen=True, eq=False)
class AblateLatents(LatentChange):
    """Makes latents inactive."""

    @property
    def verb(self) -> str:
        """What is done, in a word."""
        return "ablate"

    @property
    def idle(self) -> str:
        """Why it may have changed nothing."""
        return "active at none of them, so that there was nothing to ablate"

    def _new(self, f: Float[Tensor, "token chosen"]) -> Float[Tensor, "token chosen"]:
        return torch.zeros_like(f)


@dataclass(frozen=True, eq=False)
class ClampLatents(LatentChange):
    """Sets latents to a value at every token of the scope, active or not.

    Attributes:
        value: In units of the latents' activation; below 0, where an autoencoder's own latents never are, it writes
            against the decoder row.

    Raises:
        CliffscopeError: If the value is NaN or infinite.
    """

    value: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_finite("clamp", self.value)

    @property
    def verb(self) -> str:
        """What is done, in a word."""
        return "clamp"

    @property
    def idle(self) -> str:
        """Why it may have changed nothing."""
        return f"already at {self.value:g} at all of them"

    def _dose(self) -> dict[str, float]:
        return {"value": self.value}

    def _new(self, f: Float[Tensor, "token chosen"]) -> Float[Tensor, "token chosen"]:
        return torch.full_like(f, self.value)


@dataclass(frozen=True, eq=False)
class AddLatents(LatentChange):
    """Adds to latents' activations at every token of the scope, active or not.

    Attributes:
        amount: In units of the latents' activation.

    Raises:
        CliffscopeError: If the amount is NaN or infinite.
    """

    amount: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_finite("add", self.amount)

    @property
    def verb(self) -> str:
        """What is done, in a word."""
        return "add"

    @property
    def idle(self) -> str:
        """Why it may have changed nothing."""
        return f"left as they were by adding {self.amount:g}"

    def _dose(self) -> dict[str, float]:
        return {"amount": self.amount}

    def _new(self, f: Float[Tensor, "token chosen"]) -> Float[Tensor, "token chosen"]:
        return f + self.amount
