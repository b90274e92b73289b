"""`HeadMask`: a factor for every query head of a model, in a file that training jobs load.

    z_{l,h} ← scale[l, h] · z_{l,h}

where z is a head's output before the output projection: at all tokens, in training and evaluation, as long as the mask
is attached. With `renormalize` the attention's output keeps its norm at each token. After Yin et al. 2025 (arXiv
2510.06036), with one departure: their code rescales by one norm over the whole batch, so that a text's values
depend on the texts beside it; here each token has its own.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.display.shown import Drawn, Words
from interp.errors import CliffscopeError
from interp.models.hooked_model import HookedModel
from interp.models.hooks import Change
from interp.models.token_context import TokenContext
from interp.transcripts import Transcript
from interventions.heads import Head, check_heads
from interventions.masks.attached_mask import AttachedMask, MaskedLayer
from interventions.masks.expected_effect import ExpectedEffect
from interventions.masks.fit import check_fit, fingerprint_of
from interventions.masks.unwrapping import hooked

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from interventions.masks.proof import MaskReport, Verify


@dataclass(frozen=True, eq=False, repr=False)
class HeadMask(Drawn):
    """What each head's output is multiplied by.

    Attributes:
        scale: float32 on the CPU; 1 leaves a head as it is, 0 silences it. Heads are query heads.
        renormalize: Whether what a layer's heads write together keeps its norm at each token.
        model: Name of the model that the mask was made for.
        fingerprint: What that model is: `HookedModel.fingerprint`, and `output_projections`, a hash of the masked
            layers' output projections. Empty if unknown.
        method: How the heads were found.
        facts: What else is known of its making, such as `ranked` (heads, best first) and thresholds; JSON can hold it.
        expected: What it does to a few texts, to prove that it is live; `None` if never measured.

    Raises:
        CliffscopeError: If the scale is not `[n_layers, n_heads]`, holds NaN or infinity, or masks nothing.
    """

    scale: Float[Tensor, "layer head"]
    renormalize: bool = False
    model: str | None = None
    fingerprint: Mapping[str, str] = field(default_factory=dict)
    method: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    expected: ExpectedEffect | None = None

    def __post_init__(self) -> None:
        scale = self.scale.detach().to(device="cpu", dtype=torch.float32)
        if scale.ndim != 2:
            raise CliffscopeError(f"mask: expected a scale [n_layers, n_heads], found {list(scale.shape)}.")
        if not bool(torch.isfinite(scale).all()):
            raise CliffscopeError("mask: the scale holds NaN or infinity; make it again.")
        if bool((scale == 1).all()):
            raise CliffscopeError("mask: it masks nothing, every scale is 1; choose heads and a scale other than 1.")
        object.__setattr__(self, "scale", scale)

    @classmethod
    def build(
        cls,
        model: HookedModel,
        heads: Iterable[tuple[int, int]],
        *,
        gamma: float = 0.0,
        renormalize: bool = False,
        method: str | None = None,
        facts: Mapping[str, Any] | None = None,
        sequences: Sequence[Transcript] | None = None,
    ) -> "HeadMask":
        """A mask for a model, with the model's fingerprint and its expected effect, measured here.

        Args:
            model: Not changed.
            heads: The query heads to mask, best first.
            gamma: What their outputs are multiplied by.
            renormalize: See the class.
            method: See the class.
            facts: See the class; `ranked` is put down here.
            sequences: Texts to measure the effect on, each cut after its edge where it has one: the three on which the
                mask does most are stored, word for word, in the file. By default three texts of the project's own.

        Raises:
            CliffscopeError: If the model lacks a head, `gamma` is 1, or the mask changes no prediction.
        """
        chosen = [Head(*head) for head in heads]
        scale = torch.ones(model.n_layers, model.n_heads)
        for layer, head in check_heads(chosen, model):
            scale[layer, head] = gamma
        mask = cls(
            scale,
            renormalize,
            model.name,
            method=method,
            facts={**(facts or {}), "ranked": [str(head) for head in chosen]},
        )
        mask = replace(mask, fingerprint=fingerprint_of(model, mask.layers))
        return replace(mask, expected=ExpectedEffect.of(mask, model, sequences))

    @cached_property
    def heads(self) -> tuple[Head, ...]:
        """The masked heads, ascending: those whose scale is not 1."""
        return tuple(Head(*pair) for pair in (self.scale != 1).nonzero().tolist())

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers that hold masked heads, ascending."""
        return tuple(sorted({head.layer for head in self.heads}))

    @property
    def fraction(self) -> float:
        """Masked heads as a share of all."""
        return len(self.heads) / self.scale.numel()

    def summary(self) -> dict[str, Any]:
        """What the mask is, as plain values for a table or JSON."""
        return {
            "model": self.model,
            "heads": [str(head) for head in self.heads],
            "scale": [float(self.scale[head]) for head in self.heads],
            "fraction": self.fraction,
            "renormalize": self.renormalize,
            "method": self.method,
            "facts": dict(self.facts),
            "fingerprint": dict(self.fingerprint),
            "expected": None if self.expected is None else self.expected.summary(),
        }

    def figure(self) -> "go.Figure":
        """Which heads are scaled, by layer and head; see `interventions.masks.mask_grid`."""
        from interventions.masks.mask_grid import mask_grid

        return mask_grid(self)

    def words(self) -> Words:
        """Which heads it scales and by how much, and how they were found."""
        rows: list[list[object]] = [["head", "scale"]]
        rows += [[str(head), float(self.scale[head])] for head in self.heads[:12]]
        if len(self.heads) > 12:
            rows.append(["…", f"{len(self.heads) - 12} more"])
        how = f"Heads found by {self.method}. " if self.method else ""
        norm = "keeps its norm" if self.renormalize else "is not rescaled"
        text = f"{how}What a layer's heads write together {norm}."
        head = f"{len(self.heads)} of {self.scale.numel()} heads ({self.fraction:.1%})"
        return Words(f"Head mask for {self.model or 'an unnamed model'}", head, (text,), rows)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the mask as safetensors, atomically; equal masks give equal bytes.

        Raises:
            CliffscopeError: If the file cannot be written or JSON cannot hold the facts.
        """
        from interventions.masks.mask_file import write_mask

        write_mask(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "HeadMask":
        """Reads a mask.

        Raises:
            CliffscopeError: If the file is missing, not safetensors, not a mask, of another version, or holds a wrong
                shape, NaN, infinity or unreadable metadata.
        """
        from interventions.masks.mask_file import read_mask

        return read_mask(path)

    def changes(self, model: HookedModel) -> Mapping[str, Change]:
        """For `HookedModel.intervene`: the same change as `attached`, one a masked layer.

        Raises:
            CliffscopeError: If the mask is for another model, its weights compared too.
        """
        check_fit(self, model, weights=True)
        return {f"blocks.{layer}.attn.hook_z": partial(_change, self.layer(model, layer)) for layer in self.layers}

    def layer(self, model: HookedModel, layer: int) -> MaskedLayer:
        """What the mask does in one layer of a model."""
        return MaskedLayer(model.places.output_projection(layer), self.scale[layer], self.renormalize)

    def attach(self, model: Any, verify: "Verify" = "full") -> AttachedMask:
        """Makes the mask part of every forward pass of a model, until `remove()` is called on what is returned.

        The heads' outputs are multiplied where the output projection reads them; no weight is changed, so what is saved
        meanwhile is the unmasked model. Under LoRA, base and adapter both read the masked outputs.

        Args:
            model: A Hugging Face causal LM in any state of wrapping: plain, `HookedModel`, PEFT, compiled, DDP, FSDP.
            verify: `"full"` also refuses a model whose output projections are not those that the mask was made for,
                where they can be read (not while sharded or quantized); `"architecture"` takes a model of the same
                architecture and sizes whatever its weights are, such as one trained further.

        Raises:
            CliffscopeError: If the mask is for another model; then nothing is attached.
        """
        inner = hooked(model)
        check_fit(self, inner, weights=verify == "full")
        return AttachedMask(inner.places, {layer: self.layer(inner, layer) for layer in self.layers})

    @contextlib.contextmanager
    def attached(self, model: Any, verify: "Verify" = "full") -> Iterator[AttachedMask]:
        """`attach` for the length of a `with` block, also when it is left by an exception."""
        attached = self.attach(model, verify)
        try:
            yield attached
        finally:
            attached.remove()

    def check(self, model: Any, verify: "Verify" = "full") -> "MaskReport":
        """Whether the mask fits a model, is live on it, and does there what it did where it was made.

        Runs a few short forward passes, in evaluation mode, without and with the mask; the model is left as it was.
        Under FSDP every process must call it.
        """
        from interventions.masks.proof import check_mask

        return check_mask(self, model, verify)

    def fold(self, model: HookedModel, verify: "Verify" = "full") -> dict[str, Tensor]:
        """The model's state dict with the mask in its output projections; see `interventions.masks.folding`."""
        from interventions.masks.folding import folded_state

        return folded_state(self, model, verify)


def _change(layer: MaskedLayer, value: Tensor, tokens: TokenContext) -> Tensor:
    return layer(value)
