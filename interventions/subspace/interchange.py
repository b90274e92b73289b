"""Interchange of a subspace: one rollout's coordinates in it, put into another rollout's forward pass.

    out = base + (R source − R base) Rᵀ        R: orthonormal rows that span the subspace

After distributed alignment search (Geiger et al. 2023, arXiv 2303.02536). What lies outside the subspace stays the
base's own; with the whole space it is the interchange of the full value.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import CliffscopeError
from interp.models.fingerprint import require_same_model
from interp.models.hooks import Change
from interp.models.sites import Site
from interp.models.token_context import TokenContext
from interp.transcripts.positions import EDGE
from interventions.directions.direction import Direction
from interventions.scope import in_scope

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel


def interchanged(
    base: Float[Tensor, "*rows width"], source: Float[Tensor, "*rows width"], basis: Float[Tensor, "k width"] | None
) -> Float[Tensor, "*rows width"]:
    """`base` with the coordinates of `source` in the subspace of some orthonormal rows; all of it if `None`."""
    if basis is None:
        return source
    return base + ((source - base) @ basis.T) @ basis


@dataclass(frozen=True, eq=False)
class InterchangeSubspace:
    """Puts other rollouts' coordinates in a subspace at some positions; the rest of each value stays.

    Attributes:
        direction: The subspace, at one site; it says which.
        sources: For the id of each rollout that is run, the values `[position, width]` whose coordinates it gets; per
            head values (`attn.hook_z`) are given flat.
        positions: Where, as in `Transcript.position`; the edge is found while generating too.
        whole: Interchange the full value: the direction only says where.
    """

    direction: Direction
    sources: Mapping[str, Float[Tensor, "position width"]]
    positions: Sequence[str | int] = field(default=(EDGE,))
    whole: bool = False

    def __post_init__(self) -> None:
        for name, values in self.sources.items():
            if values.shape != (len(self.positions), self.direction.d_model):
                raise CliffscopeError(
                    f"interchange: the source of rollout {name!r} has shape {list(values.shape)}, expected "
                    f"{[len(self.positions), self.direction.d_model]}: one value for each position."
                )

    def changes(self, model: "HookedModel") -> Mapping[str, Change]:
        """One change, at the direction's site.

        Raises:
            CliffscopeError: If the direction was made for another model or width, or does not say its site. A pass
                raises it for a rollout without a source.
        """
        return {str(site_of(model, self.direction)): partial(self._change, {})}

    def _change(self, bases: dict[torch.device, Tensor], value: Tensor, tokens: TokenContext) -> Tensor:
        if len(tokens.transcripts) != len(value):
            raise CliffscopeError("interchange: this pass does not say whose tokens it carries; use HookedModel's own.")
        at, sources = self._columns(tokens), self._sources(tokens).to(value.device)
        match = tokens.index[:, :, None] == at[:, None, :]
        chosen = match.int().argmax(-1)
        source = sources.gather(1, chosen[..., None].expand(*chosen.shape, sources.shape[-1]))
        if value.device not in bases:
            bases[value.device] = self.direction.basis.to(value.device)
        flat = value.flatten(2).float()
        new = interchanged(flat, source, None if self.whole else bases[value.device])
        return in_scope(match.any(-1), new.to(value.dtype).reshape(value.shape), value)

    def _columns(self, tokens: TokenContext) -> Int[Tensor, "batch position"]:
        """The token index of each position in each row."""
        columns = [
            tokens.edge
            if position == EDGE
            else torch.tensor([t.position(position) for t in tokens.transcripts], device=tokens.index.device)
            for position in self.positions
        ]
        return torch.stack(columns, dim=1)

    def _sources(self, tokens: TokenContext) -> Float[Tensor, "batch position width"]:
        missing = [t.id for t in tokens.transcripts if t.id not in self.sources]
        if missing:
            raise CliffscopeError(f"interchange: no source is given for rollout {missing[0]!r}; give one for each.")
        return torch.stack([self.sources[t.id].float().cpu() for t in tokens.transcripts])


def site_of(model: "HookedModel", direction: Direction) -> Site:
    """Where a direction lies in a model.

    Raises:
        CliffscopeError: If it was made for another model or width, or does not say its site, or there is none such.
    """
    advice = "fit one for this model"
    require_same_model("direction", direction.model, direction.fingerprint, model.fingerprint, model.name, advice)
    if direction.site is None:
        raise CliffscopeError("direction: it does not say at which site it lies; give it one with .at(site=...).")
    site = Site.parse(direction.site, model.n_layers)
    width = model.n_heads * model.d_head if site.name == "attn.hook_z" else model.d_model
    if direction.d_model != width:
        raise CliffscopeError(f"direction: of width {direction.d_model}, and {site} of {model.name} has width {width}.")
    return site
