"""What every head, MLP and bias writes along a probe's direction, from one forward pass.

Steps:
1. Take the probe's unit direction u = w / ‖w‖. If the probe reads after the final norm, pull u back through that norm
   with its scale frozen at each rollout's own value (`interp.models.frozen_norm`).
2. Read every head's output z at the position. The contribution of head (l, h) is u·(W_O^{l,h} z_{l,h}): Yin et al. 2025
   (arXiv 2510.06036), whose code dots a direction fitted after the final norm with head outputs before it.
   Where an architecture has a norm between the attention and the residual stream (Gemma 3, OLMo 2), u is pulled back
   through it too.
3. Read what the MLPs, the attention's output biases and the embedding write along u. Together with the probe's bias,
   everything up to the probe must add up to the probe's logit; if it does not, the model is refused.

The assumption that makes it exact: the residual stream is a plain sum of what its blocks write. Contributions say what
is written, not what would happen without it: later heads read the stream too, and a frozen scale does not move.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.errors import CliffscopeError
from interp.models.batching import Batch
from interp.models.capture import BATCH_TOKENS, stream, take_columns, token_indices
from interp.models.frozen_norm import FrozenNorm
from interp.models.hooks import hook
from interp.models.places import Place
from interp.models.sites import FINAL_NORM, Site
from interp.transcripts import Transcript
from interp.transcripts.positions import EDGE
from probes.linear import LinearProbe
from probes.trajectory import check_probe

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel

MAX_ERROR = 1e-4
"""The largest error of completeness, rounding of the model's own precision not counted."""


@dataclass(frozen=True, eq=False)
class Contributions:
    """What the parts of a model write along a probe's unit direction at one position; float32 on the CPU.

    Attributes:
        ids: The transcripts' ids: the axis `rollout`.
        heads: Of every head.
        mlps: Of every MLP (or mixture of experts).
        biases: Of the bias of every attention's output (and of the norm after it).
        embedding: Of what enters the first block.
        constant: The probe's bias, with what the final norm's bias adds, divided by ‖w‖.
        logit: The probe's logit w·h + b.
        length: ‖w‖: the parts up to the probe add up to `logit / length`.
        rounding: The error to be expected along u because the model rounds the residual stream after every addition:
            next to nothing in float32, some hundredths of a typical part in bfloat16.
        n_attentions, n_mlps: How many layers' attentions and MLPs lie before the probe.
    """

    ids: tuple[str, ...]
    heads: Float[Tensor, "rollout layer head"]
    mlps: Float[Tensor, "rollout layer"]
    biases: Float[Tensor, "rollout layer"]
    embedding: Float[Tensor, "rollout"]
    constant: float
    logit: Float[Tensor, "rollout"]
    length: float
    rounding: Float[Tensor, "rollout"]
    n_attentions: int
    n_mlps: int

    @property
    def parts(self) -> Float[Tensor, "rollout part"]:
        """Everything before the probe: heads, attention biases, MLPs, embedding, constant."""
        before = (self.heads[:, : self.n_attentions].flatten(1), self.biases[:, : self.n_attentions])
        rest = (self.mlps[:, : self.n_mlps], self.embedding[:, None])
        return torch.cat([*before, *rest, torch.full_like(self.embedding[:, None], self.constant)], dim=1)

    @property
    def error(self) -> Float[Tensor, "rollout"]:
        """How far the parts are from adding up, relative to the largest of them or the sum, whichever is larger.

        Relative to the sum alone, rounding would look large wherever large parts cancel.
        """
        return (self.parts.sum(1) - self.logit / self.length).abs() / self._largest

    @property
    def complete(self) -> bool:
        """Whether the parts add up to 1e-4, beyond what rounding explains."""
        return bool((self.error <= MAX_ERROR + 4 * self.rounding / self._largest).all())  # not where it is NaN

    @property
    def _largest(self) -> Float[Tensor, "rollout"]:
        return torch.maximum(self.parts.abs().amax(1), (self.logit / self.length).abs())


def contributions(
    model: "HookedModel",
    probe: LinearProbe,
    transcripts: Sequence[Transcript],
    *,
    position: str | int = EDGE,
    batch_tokens: int = BATCH_TOKENS,
) -> Contributions:
    """The contributions of all parts of a model to a probe's logit at a position.

    Args:
        model: The model; interventions that are active on it show.
        probe: Reads the residual stream or the final norm's output.
        transcripts: What to read.
        position: As in `Transcript.position`.
        batch_tokens: Token budget of a batch.

    Raises:
        CliffscopeError: If there is no transcript, one lacks the position, the probe was made for another model or
            reads something else, a norm in the way is none, or the contributions do not add up to the probe's logit.
    """
    if not transcripts:
        raise CliffscopeError("attribution: there is no rollout to read.")
    reader = _Reader(model, probe, transcripts, position)
    rows: list[int] = []
    parts: list[dict[str, Tensor]] = []
    with reader.norm_inputs():
        for batch, kept in stream(model, transcripts, reader.sites, reader.read, batch_tokens):
            rows += batch.rows
            parts.append(reader.assemble({name: value.cpu() for name, value in kept.items()}))
    order = torch.tensor(rows).argsort()
    found = Contributions(
        ids=tuple(transcript.id for transcript in transcripts),
        constant=reader.constant,
        length=float(probe.weight.norm()),
        n_attentions=reader.n_attentions,
        n_mlps=reader.n_mlps,
        **{name: torch.cat([part[name] for part in parts])[order] for name in parts[0]},
    )
    _check_complete(model, found)
    return found


class _Reader:
    """Knows which sites to read and what to keep of them: a few floats a rollout."""

    def __init__(
        self, model: "HookedModel", probe: LinearProbe, transcripts: Sequence[Transcript], position: str | int
    ) -> None:
        places = model.places
        self.columns = token_indices(transcripts, [position])
        self.probe, self.site = probe, check_probe(model, probe)
        self.n_layers, self.dtype = model.n_layers, model.dtype
        self.n_attentions, self.n_mlps = _layers_before(Site.parse(self.site, self.n_layers), self.n_layers)
        norms = {_site(layer, "hook_attn_out"): norm_after_attention(model, layer) for layer in range(self.n_layers)}
        norms[FINAL_NORM] = places.final_norm if self.site == FINAL_NORM else None
        self.norms = {name: norm for name, norm in norms.items() if norm is not None}
        self.frozen = {name: FrozenNorm.of(norm, model.d_model, name, model.dtype) for name, norm in self.norms.items()}
        self.direction, bias = probe.direction, probe.bias
        if final := self.frozen.get(FINAL_NORM):
            self.direction, bias = final.pull(self.direction), bias + final.constant(probe.weight)
        self.constant = bias / float(probe.weight.norm())
        self._prepare(model)
        every = [_site(layer, name) for layer in range(self.n_layers) for name in ("attn.hook_z", "hook_mlp_out")]
        self.sites = [_site(0, "hook_resid_pre"), *every, *self.norms, self.site]
        self.inputs: dict[str, Tensor] = {}

    @torch.no_grad()
    def _prepare(self, model: "HookedModel") -> None:
        """What z is dotted with in each layer: W_O times the direction, pulled back through the norm in between."""
        self.weights: list[Tensor] = []
        self.biases: list[float] = []
        self.norm_biases: list[float] = []
        for layer in range(self.n_layers):
            frozen = self.frozen.get(_site(layer, "hook_attn_out"))
            direction = self.direction if frozen is None else frozen.pull(self.direction)
            weight = model.places.output_weight(layer)
            self.weights.append(weight.float() @ direction.to(weight.device))
            projection = model.places.output_projection(layer)
            bias = getattr(getattr(projection, "base_layer", projection), "bias", None)
            self.biases.append(0.0 if bias is None else float(bias.float().cpu() @ direction))
            self.norm_biases.append(0.0 if frozen is None else frozen.constant(self.direction))

    @contextmanager
    def norm_inputs(self) -> Iterator[None]:
        """Keeps what enters the norms in the way until their output is read."""
        handles = [
            hook(Place(norm, "in"), lambda value, name=name: self.inputs.update({name: value}))  # type: ignore[misc]
            for name, norm in self.norms.items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def read(self, name: str, value: Tensor, batch: Batch) -> Tensor:
        """What is kept of a site: its projection, or the scale of the norm whose output it is."""
        columns = self.columns[list(batch.rows)].to(value.device) + batch.start[:, None].to(value.device)
        here = take_columns(value, columns)[:, 0].float()
        parsed = Site.parse(name, self.n_layers)
        if parsed.layer is not None and parsed.name == "attn.hook_z":
            return torch.einsum("bhd,hd->bh", here, self.weights[parsed.layer].to(here.device))
        if name in self.frozen:
            kept = self.frozen[name].scales(take_columns(self.inputs.pop(name), columns)[:, 0], here)
        else:
            kept = here @ self.direction.to(here.device)
        return torch.stack([kept, *self._probed(here)], dim=1) if name == self.site else kept

    def _probed(self, here: Float[Tensor, "batch d_model"]) -> tuple[Tensor, Tensor]:
        """The probe's logit, and the rounding error to be expected along its direction."""
        # Each of two additions a layer rounds every coordinate by itself.
        unit = torch.finfo(self.dtype).eps * math.sqrt(2 * self.n_layers)
        return self.probe.logit(here), unit * (here * self.probe.direction.to(here.device)).norm(dim=1)

    def assemble(self, kept: dict[str, Tensor]) -> dict[str, Tensor]:
        """The contributions of one batch's rollouts, each with its own scales."""
        probed, logit, rounding = kept[self.site].unbind(1)
        # A probe at the first block's input reads the embedding itself.
        kept = {**kept, self.site: probed}
        one = torch.ones_like(logit)
        final = kept.get(FINAL_NORM, one)
        heads, mlps, after = (
            torch.stack([kept.get(_site(layer, name), one) for layer in range(self.n_layers)], dim=1)
            for name in ("attn.hook_z", "hook_mlp_out", "hook_attn_out")
        )
        biases = after * torch.tensor(self.biases) + torch.tensor(self.norm_biases)
        return {
            "heads": heads * (after * final[:, None])[..., None],
            "mlps": mlps * final[:, None],
            "biases": biases * final[:, None],
            "embedding": kept[_site(0, "hook_resid_pre")] * final,
            "logit": logit,
            "rounding": rounding,
        }


def norm_after_attention(model: "HookedModel", layer: int) -> nn.Module | None:
    """The norm between a layer's attention and the residual stream, where the architecture has one."""
    written = model.places.find(Site(layer, "hook_attn_out")).module
    return None if model.places.output_projection(layer) in set(written.modules()) else written


def _site(layer: int, name: str) -> str:
    return str(Site(layer, name))


def _layers_before(site: Site, n_layers: int) -> tuple[int, int]:
    """How many layers' attentions and MLPs a probe at a site sees."""
    if site.layer is None:
        return n_layers, n_layers
    seen = {"hook_resid_pre": (0, 0), "hook_resid_mid": (1, 0), "hook_resid_post": (1, 1)}
    if site.name not in seen:
        raise CliffscopeError(
            f"attribution: the probe reads {site}, which holds what one layer writes; "
            "use a probe of the residual stream (hook_resid_post) or of the final norm."
        )
    attentions, mlps = seen[site.name]
    return site.layer + attentions, site.layer + mlps


def _check_complete(model: "HookedModel", found: Contributions) -> None:
    """Refuses a model whose parts do not add up: some residual multiplier, adapter or norm is not accounted for."""
    if not found.complete:
        raise CliffscopeError(
            f"attribution: what the parts of {model.name} write does not add up to the probe's logit (relative error "
            f"{float(found.error.max()):.1e}): {model.places.architecture} does more than add its blocks' outputs, "
            "or an adapter or intervention acts on them; use the ablation or interchange method."
        )
