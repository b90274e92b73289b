"""How a model is to be repaired, checked when it is said."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from interp.errors import CliffscopeError
from interventions.heads import Head
from interventions.masks.head_mask import HeadMask

Trainable = Literal["all", "lora", "heads"]
LossOn = Literal["response", "close", "thinking"]
Precision = Literal["auto", "float32", "bfloat16"]

LEARNING_RATES: Mapping[str, float] = {"all": 1e-5, "lora": 2e-4, "heads": 1e-4}
"""Usual ones for models of a billion parameters and more. The bundled organisms want 3e-4, 1e-3 and 3e-3."""


@dataclass(frozen=True)
class RepairOptions:
    """How a model is to be repaired: Adam without weight decay, cosine schedule, gradient norm at most 1.

    Attributes:
        trainable: `all` parameters; `lora`: low-rank adapters on the linear layers of attention and MLP, merged at the
            end; `heads`: the query rows and output columns of `heads` alone.
        loss_on: What is learnt: `response` with the end of turn; `close` and response; `thinking`, close and response.
            Where the thinking is the model's own, learning it too holds it in place: without, a model that learns to
            answer otherwise may also learn to think on without end.
        epochs: Times that every example is seen.
        learning_rate: The highest; `None` takes that of `LEARNING_RATES`.
        warmup: Share of the steps in which the learning rate rises.
        batch_size: Examples an optimizer step, over all processes.
        device_batch_size: Examples at a time in a process; `None` takes the whole batch at once.
        max_length: Tokens of an example; what is beyond is cut off. `None` takes the model's context.
        seed: Of the order of examples, the benign ones drawn, and new adapters.
        heads: What `trainable="heads"` trains, for instance `HeadMask.heads`.
        mask: Active during training, and not in the weights that are written.
        lora_rank: Rank of the adapters; they are scaled by 2.
        keep_adapter: Write the adapter too, in the folder `adapter`.
        benign_share: Benign examples as a share of all; `None` takes all that are given.
        checkpoint_every: Optimizer steps between two checkpoints; `None` makes five in all. The last two are kept.
        precision: `auto` computes in bfloat16 on an accelerator that has it, else in float32; `bfloat16` on a CPU, too.
            Weights are float32 while they are trained, and are written in the precision of the model's checkpoint.
        gradient_checkpointing: Less memory for more time.
        fsdp: Under `torchrun`, with accelerators: shard the model over the processes (FSDP 2), instead of one copy in
            each.
        device: `None` takes the accelerator if there is one.

    Raises:
        CliffscopeError: If a value is out of range, or one that would have no effect is given.
    """

    trainable: Trainable = "all"
    loss_on: LossOn = "thinking"
    epochs: int = 3
    learning_rate: float | None = None
    warmup: float = 0.1
    batch_size: int = 8
    device_batch_size: int | None = None
    max_length: int | None = None
    seed: int = 0
    heads: tuple[Head, ...] = ()
    mask: HeadMask | None = None
    lora_rank: int = 16
    keep_adapter: bool = False
    benign_share: float | None = None
    checkpoint_every: int | None = None
    precision: Precision = "auto"
    gradient_checkpointing: bool = False
    fsdp: bool = False
    device: str | None = None

    def __post_init__(self) -> None:
        for name, kinds in (("trainable", Trainable), ("loss_on", LossOn), ("precision", Precision)):
            if getattr(self, name) not in get_args(kinds):
                raise CliffscopeError(
                    f"repair: {name} is {getattr(self, name)!r}; expected one of: {', '.join(get_args(kinds))}."
                )
        for name in ("epochs", "batch_size", "device_batch_size", "max_length", "lora_rank", "checkpoint_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise CliffscopeError(f"repair: {name} is {value}; expected at least 1.")
        if not 0 < self.rate < float("inf"):
            raise CliffscopeError(f"repair: learning_rate is {self.rate}; expected a number above 0.")
        if not 0 <= self.warmup < 1:
            raise CliffscopeError(f"repair: warmup is {self.warmup}; expected a share of the steps, from 0 to below 1.")
        if self.benign_share is not None and not 0 < self.benign_share < 1:
            raise CliffscopeError(f"repair: benign_share is {self.benign_share}; expected a share between 0 and 1.")
        self._check_heads()
        if self.keep_adapter and self.trainable != "lora":
            raise CliffscopeError(f'repair: with trainable="{self.trainable}" there is no adapter to keep.')

    def _check_heads(self) -> None:
        if self.trainable != "heads":
            if self.heads:
                raise CliffscopeError(f'repair: heads are given, but trainable is "{self.trainable}", not "heads".')
            return
        if not self.heads:
            raise CliffscopeError('repair: trainable="heads" needs heads: those of a head mask, for instance.')
        silenced = set() if self.mask is None else {h for h in self.mask.heads if not self.mask.scale[h]}
        if idle := [str(head) for head in self.heads if head in silenced]:
            raise CliffscopeError(
                f"repair: head {', '.join(idle)} would learn nothing: the mask that is active silences what it writes; "
                "train other heads, or without the mask."
            )

    @property
    def rate(self) -> float:
        """The learning rate, the default filled in."""
        return LEARNING_RATES[self.trainable] if self.learning_rate is None else self.learning_rate

    def settings(self) -> dict[str, Any]:
        """What the result depends on beside model and examples, as JSON; not on what and in what pieces it is run."""
        mask = self.mask
        return {
            "trainable": self.trainable,
            "loss_on": self.loss_on,
            "epochs": self.epochs,
            "learning_rate": self.rate,
            "warmup": self.warmup,
            "batch_size": self.batch_size,
            "max_length": self.max_length,
            "seed": self.seed,
            "heads": [str(head) for head in self.heads],
            "mask": None if mask is None else _digest(mask),
            "lora_rank": self.lora_rank if self.trainable == "lora" else None,
            "keep_adapter": self.keep_adapter,
            "benign_share": self.benign_share,
            "precision": self.precision,
        }


def _digest(mask: HeadMask) -> str:
    """A short hash of what a mask does."""
    data = mask.scale.numpy().tobytes() + (b"renormalize" if mask.renormalize else b"")
    return hashlib.sha256(data).hexdigest()[:16]
