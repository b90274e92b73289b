"""What a sweep is asked for and what it gives: one change of every head alone, and the readouts after it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.sweeps.readouts import Readouts
from interp.errors import CliffscopeError
from interventions.heads import Head, check_heads

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel
    from interp.transcripts import Transcript

Replace = Callable[[int, int, Float[Tensor, "pos head d_head"]], Float[Tensor, "pos head d_head"]]
"""`(row, layer, z of the positions that change)` → what z would be; each head is changed alone, by its slice of this.

`row` is the transcript's place among those given. `z` is the model's own, as the output projection would see it (after
whatever is attached to the model), and not to be written to.
"""


@dataclass(frozen=True)
class SweepEffects:
    """Readouts at the edge with each head changed alone.

    Attributes:
        ids: The transcripts' ids.
        readouts: `probe_logit` and `refusal_logit`, whichever were read.
        base: With no head changed but those of `ablated`.
        changed: With one head changed; NaN for heads that were not swept.
    """

    ids: tuple[str, ...]
    readouts: tuple[str, ...]
    base: Float[Tensor, "rollout readout"]
    changed: Float[Tensor, "rollout layer head readout"]

    def effect(self, readout: str) -> Float[Tensor, "rollout layer head"]:
        """`changed − base` of one readout.

        Raises:
            CliffscopeError: If it was not read.
        """
        if readout not in self.readouts:
            raise CliffscopeError(f"effect of {readout!r}: the sweep read {' and '.join(self.readouts)}.")
        number = self.readouts.index(readout)
        return self.changed[..., number] - self.base[:, None, None, number]


class Sweep:
    """A sweep under way: the request, checked, and the values found so far.

    Attributes:
        transcripts: The transcripts, each ending at its edge: what follows cannot matter to it.
        heads: The heads to sweep that can reach a readout, ascending.
        advance: Told how many rollouts more are done.

    Raises:
        CliffscopeError: If a transcript has no edge, a head does not exist, the probe does not fit, or the model is in
            training mode.
    """

    def __init__(
        self,
        model: "HookedModel",
        transcripts: "Sequence[Transcript]",
        readouts: Readouts,
        change: Replace,
        heads: Iterable[tuple[int, int]] | None,
        ablated: Iterable[tuple[int, int]],
        advance: Callable[[int], object],
    ) -> None:
        model.require_eval()
        self.model = model
        self.readouts = readouts
        self.transcripts = [transcript.until_edge() for transcript in transcripts]
        every = [Head(layer, head) for layer in range(model.n_layers) for head in range(model.n_heads)]
        self._asked = every if heads is None else list(check_heads(heads, model))
        self._reached = [readouts.reached(model, layer) for layer in range(model.n_layers)]
        self.heads = [head for head in self._asked if any(self._reached[head.layer])]
        self._ablated: dict[int, list[int]] = {}
        for layer, head in check_heads(ablated, model) if (ablated := list(ablated)) else ():
            self._ablated.setdefault(layer, []).append(head)
        self._change = change
        self.advance = advance
        self.base = torch.full((len(transcripts), len(readouts.names)), torch.nan)
        self.changed = torch.full((len(transcripts), model.n_layers, model.n_heads, len(readouts.names)), torch.nan)

    def layers(self) -> list[int]:
        """The layers with heads to sweep, ascending."""
        return sorted({head.layer for head in self.heads})

    def in_layer(self, layer: int) -> list[int]:
        """The heads of a layer to sweep."""
        return [head.head for head in self.heads if head.layer == layer]

    def new(self, row: int, layer: int, z: Float[Tensor, "pos head d_head"]) -> Float[Tensor, "pos head d_head"]:
        """What z would be with every head changed."""
        new = self._change(row, layer, z)
        if new.shape != z.shape:
            raise ValueError(f"layer {layer}: the new z is {tuple(new.shape)}, expected {tuple(z.shape)}")
        return new.to(z)

    def ablates(self, layer: int) -> bool:
        """Whether a layer has heads that are changed in the base too."""
        return layer in self._ablated

    def ablate(self, row: int, layer: int, z: Float[Tensor, "pos head d_head"]) -> Float[Tensor, "pos head d_head"]:
        """The same z, with the heads changed that are changed in the base too."""
        if not self.ablates(layer):
            return z
        heads = self._ablated[layer]
        ablated = z.clone()
        ablated[:, heads] = self.new(row, layer, z)[:, heads]
        return ablated

    def keep_base(self, rows: Sequence[int], values: Float[Tensor, "row readout"]) -> None:
        """Notes the base of some rollouts. Raises `CliffscopeError` if a value is NaN or infinite."""
        self._check_finite(rows, values)
        self.base[list(rows)] = values

    def _check_finite(self, rows: Iterable[int], values: Float[Tensor, "row *rest"]) -> None:
        for row, fine in zip(rows, values.flatten(1).isfinite().all(-1).tolist(), strict=True):
            if not fine:
                raise CliffscopeError(
                    f"Rollout {self.transcripts[row].id!r}: the model's activations are NaN or infinite; "
                    "try --dtype float32."
                )

    def check_replay(self, row: int, layer: int, values: Float[Tensor, " readout"]) -> None:
        """Raises `CliffscopeError` if a pass from a layer on, with no head changed, does not give the base again."""
        # Half precision rounds by as much as the size of a batch changes the order of sums.
        allowed = 0.3 if torch.finfo(self.model.dtype).bits < 32 else 2e-3
        for was, now, reached in zip(self.base[row], values, self._reached[layer], strict=True):
            if reached and not abs(now - was) <= allowed * (1 + abs(was)):
                raise CliffscopeError(
                    f"{self.model.places.architecture}: its blocks from layer {layer} on give {now:.4g} from a stored "
                    f"residual stream and {was:.4g} in a whole pass; it cannot be swept at this scope."
                )

    def effects(self) -> SweepEffects:
        """The result. Raises `CliffscopeError` if a value is NaN or infinite."""
        for head in self._asked:
            for number, reached in enumerate(self._reached[head.layer]):
                if not reached:
                    self.changed[:, head.layer, head.head, number] = self.base[:, number]
        layers, heads = zip(*self._asked, strict=True)
        self._check_finite(range(len(self.transcripts)), self.changed[:, layers, heads])
        ids = tuple(transcript.id for transcript in self.transcripts)
        return SweepEffects(ids, self.readouts.names, self.base, self.changed)
