"""What a sweep reads at the edge: the probe's logit and the refusal logit, both from one pass."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import CliffscopeError
from interp.judges.edge_logit import refusal_logit, refusal_token_ids
from interp.models.capture import BATCH_TOKENS, take_columns
from interp.models.hooks import hook
from interp.models.sites import Site
from interp.transcripts.positions import EDGE
from probes.linear import LinearProbe
from probes.trajectory import check_probe

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel
    from interp.transcripts import Transcript

PROBE_LOGIT = "probe_logit"
REFUSAL_LOGIT = "refusal_logit"


class _AllRead(Exception):
    """Raised from inside a hook when nothing is left to read: the rest of the pass is not needed."""


@dataclass(frozen=True)
class Readouts:
    """What is read at the edge.

    Attributes:
        probe: Its logit at its site (`probe_logit`); `None` to leave it out.
        refusal_tokens: The tokens that start a refusal, for the refusal logit in nats (`refusal_logit`); `None` to
            leave it out. Without it a pass stops at the probe's site.

    Raises:
        CliffscopeError: If both are left out.
    """

    probe: LinearProbe | None = None
    refusal_tokens: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.probe is None and self.refusal_tokens is None:
            raise CliffscopeError("readouts: neither a probe nor refusal tokens are given; nothing would be read.")

    @classmethod
    def of(cls, model: "HookedModel", probe: LinearProbe | None = None) -> "Readouts":
        """The refusal logit by the model's own tokenizer, and the probe's logit where a probe is given.

        Raises:
            CliffscopeError: If the model has no tokenizer or no token that starts a refusal, or the probe does not fit.
        """
        if probe is not None:
            check_probe(model, probe)
        return cls(probe, refusal_token_ids(model.tokenizer, model.chat.thinking.close))

    @property
    def names(self) -> tuple[str, ...]:
        """`probe_logit` and `refusal_logit`, whichever are read, in this order."""
        probe = () if self.probe is None else (PROBE_LOGIT,)
        return (*probe, *(() if self.refusal_tokens is None else (REFUSAL_LOGIT,)))

    def reached(self, model: "HookedModel", layer: int) -> tuple[bool, ...]:
        """Whether what a layer's heads write can reach each readout: not if it lies before them."""
        reached = []
        if self.probe is not None:
            site = Site.parse(check_probe(model, self.probe), model.n_layers)
            behind = site.layer is None or layer < site.layer
            reached.append(behind or (layer == site.layer and site.name != "hook_resid_pre"))
        return (*reached, *(() if self.refusal_tokens is None else (True,)))


def edge_refusal_logits(
    model: "HookedModel", transcripts: "Sequence[Transcript]", tokens: Sequence[int], batch_tokens: int = BATCH_TOKENS
) -> Float[Tensor, " rollout"]:
    """The refusal logit at the edge of each transcript, in nats; `tokens` start a refusal."""

    def reduce(logits: Float[Tensor, "batch position d_vocab"]) -> Float[Tensor, "batch position"]:
        return refusal_logit(logits.flatten(0, 1), tokens).unflatten(0, logits.shape[:2])

    return model.logits(transcripts, [EDGE], reduce=reduce, batch_tokens=batch_tokens)[:, 0]


@torch.no_grad()
def read(
    model: "HookedModel",
    readouts: Readouts,
    columns: Int[Tensor, "batch position"],
    transcripts: "Sequence[Transcript]",
    index: Int[Tensor, "batch pos"],
    **inputs: Any,
) -> Float[Tensor, "batch position readout"]:
    """One forward pass, and the readouts at the given columns of it: float32 on the CPU.

    A readout whose site the pass does not run through is NaN.

    Args:
        model: The model, with whatever is attached to it.
        readouts: What to read.
        columns: Where to read each row.
        transcripts: Whose rows these are, for the interventions that are active on the model.
        index: Each column's token index in its transcript, −1 at padding; for the same.
        inputs: Of the model's forward: `input_ids` and what goes with them.
    """
    found: dict[str, Tensor] = {}
    handles = []
    if (probe := readouts.probe) is not None:

        def see(value: Tensor) -> None:
            found[PROBE_LOGIT] = probe.logit(take_columns(value, columns.to(value.device))).cpu()
            if readouts.refusal_tokens is None:
                raise _AllRead

        handles.append(hook(model.places.find(Site.parse(check_probe(model, probe), model.n_layers)), see))
    try:
        with model.reading(transcripts, index):
            if readouts.refusal_tokens is None:
                model.places.decoder(**inputs)
            else:
                head = model.hf.get_output_embeddings()
                handles.append(
                    head.register_forward_pre_hook(lambda _, args: (take_columns(args[0], columns.to(args[0].device)),))
                )
                logits = model.hf(**inputs).logits.flatten(0, 1)
                found[REFUSAL_LOGIT] = refusal_logit(logits, readouts.refusal_tokens).unflatten(0, columns.shape).cpu()
    except _AllRead:
        pass
    finally:
        for handle in handles:
            handle.remove()
    missing = torch.full(columns.shape, torch.nan)
    return torch.stack([found.get(name, missing) for name in readouts.names], dim=-1)
