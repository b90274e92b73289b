"""Ablation of attention heads: scale what a head writes, or replace it by a mean or by another rollout's value.

All act on z, a head's output before the output projection, and name query heads, so grouped-query attention makes no
difference. With `renormalize` the attention's output keeps its norm at each token (the idea is from Yin et al. 2025,
arXiv 2510.06036, whose code takes one norm over the whole batch instead).
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.errors import CliffscopeError
from interp.models.hooks import Change
from interp.models.sites import Site
from interp.models.token_context import TokenContext
from interp.transcripts import Transcript
from interventions.head_values import HeadValues, kind_name, kinds_of
from interventions.heads import Head, check_heads
from interventions.renormalize import keep_norm
from interventions.scope import Scope, in_scope

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel


@dataclass(frozen=True, eq=False)
class HeadAblation(ABC):
    """Changes what some heads write, at the tokens of a scope; one subclass for each kind of change.

    Attributes:
        heads: The query heads, as `(layer, head)`.
        scope: Where it acts: see `interventions.scope.Scope`.
        renormalize: Whether the norm of what the layer's heads write together is kept at each token.
    """

    heads: Iterable[tuple[int, int]]
    scope: str = "all"
    renormalize: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "heads", tuple(Head(*head) for head in self.heads))
        Scope(self.scope)

    def changes(self, model: "HookedModel") -> Mapping[str, Change]:
        """One change a layer with ablated heads.

        Raises:
            CliffscopeError: If the model has no such query head.
        """
        by_layer: dict[int, list[int]] = {}
        for layer, head in check_heads(self.heads, model):
            by_layer.setdefault(layer, []).append(head)
        return {
            str(site := Site(layer, "attn.hook_z")): partial(
                self._change, layer, torch.tensor(heads), model.places.find(site).module
            )
            for layer, heads in by_layer.items()
        }

    def _change(
        self,
        layer: int,
        heads: Int[Tensor, " chosen"],
        projection: torch.nn.Module,
        value: Float[Tensor, "batch pos head d_head"],
        tokens: TokenContext,
    ) -> Float[Tensor, "batch pos head d_head"]:
        where = Scope(self.scope).mask(tokens)
        heads = heads.to(value.device)
        changed = value.clone()
        new = self._new(layer, value[:, :, heads], heads, where, tokens)
        changed[:, :, heads] = new.to(value.dtype)
        if self.renormalize:
            changed = keep_norm(projection, value, changed)
        return in_scope(where, changed, value)

    @abstractmethod
    def _new(
        self,
        layer: int,
        z: Float[Tensor, "batch pos chosen d_head"],
        heads: Int[Tensor, " chosen"],
        where: Bool[Tensor, "batch pos"],
        tokens: TokenContext,
    ) -> Float[Tensor, "batch pos chosen d_head"]:
        """What the chosen heads write instead; what it says outside `where` is not used."""


@dataclass(frozen=True, eq=False)
class ScaleHeads(HeadAblation):
    """Multiplies what heads write by `gamma`; 0 is zero ablation."""

    gamma: float = 0.0

    def _new(
        self,
        layer: int,
        z: Float[Tensor, "batch pos chosen d_head"],
        heads: Int[Tensor, " chosen"],
        where: Bool[Tensor, "batch pos"],
        tokens: TokenContext,
    ) -> Float[Tensor, "batch pos chosen d_head"]:
        return z * self.gamma


@dataclass(frozen=True, eq=False)
class MeanHeads(HeadAblation):
    """Replaces what heads write by its mean over reference rollouts, at tokens of the same kind.

    Attributes:
        values: Of the reference rollouts: see `HeadValues.of`.
    """

    values: HeadValues = field(kw_only=True)

    def _new(
        self,
        layer: int,
        z: Float[Tensor, "batch pos chosen d_head"],
        heads: Int[Tensor, " chosen"],
        where: Bool[Tensor, "batch pos"],
        tokens: TokenContext,
    ) -> Float[Tensor, "batch pos chosen d_head"]:
        new = z.float()
        for kind, here in _by_kind(where, tokens):
            mean = _of_kind(self.values.means[layer], kind).to(z.device)[heads]
            new = torch.where(here[:, :, None, None], mean, new)
        return new


@dataclass(frozen=True, eq=False)
class ResampleHeads(HeadAblation):
    """Replaces what heads write by what they wrote at a token of the same kind in another, random rollout.

    All heads of a token take the same reference token. Which one depends on the seed, the rollout's id and the token's
    index alone, not on the batch.

    Attributes:
        values: Of the reference rollouts: see `HeadValues.of`.
        seed: Of the choice.
    """

    values: HeadValues = field(kw_only=True)
    seed: int = 0

    def _new(
        self,
        layer: int,
        z: Float[Tensor, "batch pos chosen d_head"],
        heads: Int[Tensor, " chosen"],
        where: Bool[Tensor, "batch pos"],
        tokens: TokenContext,
    ) -> Float[Tensor, "batch pos chosen d_head"]:
        new = z.float().clone()
        for kind, here in _by_kind(where, tokens):
            samples = _of_kind(self.values.samples[layer], kind).to(z.device)
            rows, columns = here.nonzero(as_tuple=True)
            picked = [
                _pick(self.seed, tokens.transcripts[row], index, len(samples))
                for row, index in zip(rows.tolist(), tokens.index[rows, columns].tolist(), strict=True)
            ]
            new[rows, columns] = samples[torch.tensor(picked, device=z.device)][:, heads]
        return new


def _by_kind(where: Bool[Tensor, "batch pos"], tokens: TokenContext) -> list[tuple[int, Bool[Tensor, "batch pos"]]]:
    """The kinds of token in a mask, each with its part of the mask."""
    kinds = kinds_of(tokens)
    return [(int(kind), where & (kinds == kind)) for kind in kinds[where].unique()]


def _of_kind(values: Mapping[int, Tensor], kind: int) -> Tensor:
    if kind not in values:
        raise CliffscopeError(
            f"references: no token of kind {kind_name(kind)!r} in the reference rollouts, and one is to be replaced; "
            "add rollouts that have one, or choose a narrower scope."
        )
    return values[kind]


def _pick(seed: int, transcript: Transcript, index: int, n: int) -> int:
    digest = hashlib.sha256(f"{seed}\x00{transcript.id}\x00{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % n
