"""What all steering has in common: at which sites and tokens it acts, in what arithmetic, and what it refuses.

Arithmetic is in float32 and what comes out is cast back to the value's own type; tokens outside the scope keep their
values bit by bit.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.errors import CliffscopeError
from interp.models.hooks import Change
from interp.models.sites import Site
from interp.models.token_context import TokenContext
from interventions.scope import WHOLE, Scope, in_scope

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel


class Vector(Protocol):
    """What steers: it has a width, a site, and a model that it was fitted on."""

    @property
    def d_model(self) -> int:
        """Width of the activations."""

    @property
    def site(self) -> str | None:
        """Where it was fitted."""

    def check_model(self, fingerprint: Mapping[str, str], name: str) -> None:
        """Refuses another model."""


@dataclass(frozen=True, eq=False, kw_only=True)
class SiteChange(ABC):
    """Changes the activation at some sites, at the tokens of a scope; one subclass for each kind of change.

    Attributes:
        sites: Names of the sites; `None` takes the one at which the vector was fitted. `sites_of` names others.
        scope: Where in the text: see `interventions.scope.Scope`, also for the two below.
        window: The part of the thinking, with scope `thinking` only: (0.8, 1.0) is the last fifth.
        thinking_tokens: The expected length of the thinking, needed for a window while generating.

    Raises:
        CliffscopeError: If there is no such scope.
    """

    sites: Sequence[str] | None = None
    scope: str = "all"
    window: tuple[float, float] = WHOLE
    thinking_tokens: int | None = None

    def __post_init__(self) -> None:
        Scope(self.scope, self.window, self.thinking_tokens)
        if isinstance(self.sites, str):
            object.__setattr__(self, "sites", (self.sites,))

    def changes(self, model: "HookedModel") -> Mapping[str, Change]:
        """One change a site.

        Raises:
            CliffscopeError: If the vector was made for another model or width, or a site does not exist, is unknown,
                or holds heads rather than activations of the model's width.
        """
        self._vector.check_model(model.fingerprint, model.name)
        if self._vector.d_model != model.d_model:
            raise CliffscopeError(
                f"steering: a vector of width {self._vector.d_model} does not fit {model.name}, whose activations have "
                f"width {model.d_model}; fit one for this model."
            )
        where = _MaskOfPass(Scope(self.scope, self.window, self.thinking_tokens))
        constants = _OnDevices(self._constants())
        change = partial(self._change, where, constants)
        return {str(site): change for site in self._parsed_sites(model)}

    def _parsed_sites(self, model: "HookedModel") -> list[Site]:
        names = self.sites
        if names is None:
            if self._vector.site is None:
                raise CliffscopeError("steering: the vector does not say at which site it was fitted; give sites.")
            names = (self._vector.site,)
        parsed = [Site.parse(name, model.n_layers) for name in names]
        if not parsed:
            raise CliffscopeError("steering: no site is given; name one, or leave sites out for the vector's own.")
        for site in parsed:
            if site.name == "attn.hook_z":
                raise CliffscopeError(
                    f"steering: {site} holds what heads write before the output projection, not activations of the "
                    f"model's width; steer blocks.{site.layer}.hook_attn_out, or ablate heads."
                )
            model.places.find(site)  # raises where this architecture has no such site
        return parsed

    def _change(
        self,
        where: "_MaskOfPass",
        constants: "_OnDevices",
        value: Float[Tensor, "batch pos d_model"],
        tokens: TokenContext,
    ) -> Float[Tensor, "batch pos d_model"]:
        new = self._new(value.float(), *constants.on(value.device))
        return in_scope(where.at(tokens).to(value.device), new.to(value.dtype), value)

    @property
    @abstractmethod
    def _vector(self) -> Vector:
        """What steers."""

    @abstractmethod
    def _constants(self) -> tuple[Tensor, ...]:
        """The tensors that `_new` needs, on the CPU."""

    @abstractmethod
    def _new(self, value: Float[Tensor, "batch pos d_model"], *constants: Tensor) -> Float[Tensor, "batch pos d_model"]:
        """What the value becomes, both in float32; the constants are float32 on its device."""


class _MaskOfPass:
    """Where a scope lies in a pass, found out once for all sites of the pass."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._last: tuple[TokenContext, Tensor] | None = None

    def at(self, tokens: TokenContext) -> Bool[Tensor, "batch pos"]:
        if self._last is None or self._last[0] is not tokens:
            self._last = (tokens, self._scope.mask(tokens))
        return self._last[1]


class _OnDevices:
    """Float32 copies of tensors, made once for each device that asks: a model may be spread over several."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        # Narrowed on the CPU: not every device has float64.
        self._tensors = [tensor.to(device="cpu", dtype=torch.float32) for tensor in tensors]
        self._copies: dict[torch.device, list[Tensor]] = {}

    def on(self, device: torch.device) -> list[Tensor]:
        if device not in self._copies:
            self._copies[device] = [tensor.to(device) for tensor in self._tensors]
        return self._copies[device]
