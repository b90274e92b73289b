"""An organism with an illusion built in: at its last layer a direction that tells the groups apart and is not read."""

from collections.abc import Mapping
from functools import cache, partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.judges.edge_logit import refusal_token_ids
from interp.models.hooked_model import HookedModel
from interp.models.hooks import Change
from interp.models.sites import Site, resid_post
from interp.models.token_context import TokenContext
from interp.transcripts.positions import EDGE
from interventions.directions.direction import Direction
from interventions.subspace.groups import Groups
from tests.circuits.material import organism, organism_rollouts

LAYER = 5
CONTRAST = "refused-complied"


@cache
def groups(layer: int) -> Groups:
    """The refused and complied rollouts of `organism:cliff`, read at the edge after a layer."""
    site = Site(layer, "hook_resid_post")
    return Groups.of(organism("cliff"), organism_rollouts("cliff"), CONTRAST, site, EDGE)


def difference(layer: int) -> Float[Tensor, " width"]:
    """The difference of the two groups' means."""
    positive, negative = groups(layer).means
    return positive - negative


def at(layer: int, vectors: Tensor) -> Direction:
    """A direction after a layer of `organism:cliff`, at the edge."""
    model = organism("cliff")
    place = {"layer": layer, "site": resid_post(layer), "position": EDGE}
    return Direction.of(vectors, kind="refusal", model=model.name, fingerprint=model.fingerprint, **place)


class Marks:
    """Writes onto a direction, after the last block, how far a value lies along the difference of the means."""

    def __init__(self, along: Tensor, onto: Tensor, size: float) -> None:
        self.along, self.onto, self.size = along / along.norm(), onto, size

    def changes(self, model: HookedModel) -> Mapping[str, Change]:
        return {resid_post(LAYER): partial(self._change)}

    def _change(self, value: Tensor, tokens: TokenContext) -> Tensor:
        return value + self.size * (value @ self.along)[..., None] * self.onto


@cache
def blind_organism() -> tuple[HookedModel, Float[Tensor, " d_model"], Float[Tensor, " d_model"]]:
    """`organism:cliff` whose LM head, the last layer's only reader, does not read one direction.

    Returns:
        The model; the direction that is not read; and one that is read well, but along which the groups do not differ.
        Both are known from the weights and the groups' means alone.
    """
    model = HookedModel.load("organism:cliff", device="cpu")
    tied, gain = model.hf.lm_head.weight.detach(), model.hf.model.norm.weight.detach()
    apart = difference(LAYER) / difference(LAYER).norm()
    blind = _without(torch.randn(model.d_model, generator=torch.Generator().manual_seed(0)), apart)
    # What the head reads of the residual stream is its weight times the norm's gain.
    read = gain * blind
    model.hf.lm_head.weight = nn.Parameter(tied - torch.outer(tied @ read, read) / (read @ read))
    refusal = list(refusal_token_ids(model.tokenizer, model.chat.thinking.close))
    towards = gain * (model.hf.lm_head.weight[refusal].mean(0) - model.hf.lm_head.weight.mean(0)).detach()
    return model, blind, _without(_without(towards, blind), apart)


def _without(vector: Tensor, other: Tensor) -> Tensor:
    left = vector - (vector @ other) / (other @ other) * other
    return left / left.norm()
