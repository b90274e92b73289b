"""Training itself: TRL's `SFTTrainer` on tokens that are labelled already, resumed from whole checkpoints only."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import SFTConfig, SFTTrainer

from interp.errors import CliffscopeError
from interp.progress import progress
from interventions.masks.callback import HeadMaskCallback
from selection.repair.dataset import TrainingTokens
from selection.repair.machine import computes_in_bfloat16, on_cpu, split_batch
from selection.repair.options import RepairOptions
from selection.repair.trainable import TrainedPart

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

CHECKPOINTS = 5
"""Over a whole training, where no interval is given."""

# Newer versions of transformers say that the second is deprecated.
_CHECKPOINTING = next(n for n in ("activation_checkpointing", "gradient_checkpointing") if hasattr(SFTConfig, n))


class RepairTrainer(SFTTrainer):
    """Trains only the entries that it is told, where it is told any.

    The gradients of all others are zero before they are clipped, so that the norm is that of what is trained. Done
    after each backward pass and not in hooks on the parameters, which sharding replaces.
    """

    entries: Mapping[str, Tensor] = {}

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """A forward and a backward pass."""
        loss: Tensor = super().training_step(*args, **kwargs)
        if self.entries:
            for name, parameter in self.accelerator.unwrap_model(self.model).named_parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(_placed(self.entries[name], parameter.grad))
        return loss


def train(
    part: TrainedPart,
    tokenizer: "PreTrainedTokenizerBase",
    examples: Sequence[TrainingTokens],
    options: RepairOptions,
    folder: Path,
    *,
    resume_from: Path | None = None,
    saved: Callable[[int], object] = lambda step: None,
) -> RepairTrainer:
    """Trains to the end.

    Args:
        part: The model and what of it is trained; changed in place.
        tokenizer: Its padding token is used, and set where there is none.
        examples: In the order from which batches are drawn.
        options: See `RepairOptions`.
        folder: For the checkpoints.
        resume_from: One of them, to go on from.
        saved: Called with the step when a checkpoint is whole.

    Raises:
        CliffscopeError: If the loss becomes NaN, or the mask does not hold.
    """
    config = configuration(options, len(examples), folder)
    masks = [HeadMaskCallback(options.mask)] if options.mask is not None else []
    with ExitStack() as stack:
        for mask in masks:
            stack.callback(mask.detach)
        model: Any = part.module
        trainer = RepairTrainer(
            model,
            args=config,
            train_dataset=_dataset(examples),
            processing_class=tokenizer,
            callbacks=[*masks, _Watch(saved, stack)],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.entries = part.entries
        trainer.train(resume_from_checkpoint=None if resume_from is None else str(resume_from))
    return trainer


def configuration(options: RepairOptions, n_examples: int, folder: Path) -> SFTConfig:
    """The trainer's settings; to make them joins the processes that `torchrun` started."""
    steps = math.ceil(n_examples / options.batch_size) * options.epochs
    size, accumulated = split_batch(options)
    checkpointing: dict[str, Any] = {_CHECKPOINTING: options.gradient_checkpointing}  # TRL's own default is True
    # One file that is read without unpickling; the sharded form's metadata is not.
    sharding: dict[str, Any] = {"fsdp": True, "fsdp_config": {"version": 2, "state_dict_type": "FULL_STATE_DICT"}}
    return SFTConfig(
        output_dir=str(folder),
        num_train_epochs=options.epochs,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=accumulated,
        learning_rate=options.rate,
        lr_scheduler_type="cosine",
        warmup_steps=round(options.warmup * steps),
        optim="adamw_torch",
        weight_decay=0.0,
        max_grad_norm=1.0,
        seed=options.seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=options.checkpoint_every or math.ceil(steps / CHECKPOINTS),
        save_total_limit=2,
        bf16=computes_in_bfloat16(options),
        **checkpointing,
        use_cpu=on_cpu(options),
        **(sharding if options.fsdp else {}),
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        report_to="none",
        disable_tqdm=True,
    )


def _dataset(examples: Sequence[TrainingTokens]) -> "Dataset":
    from datasets import Dataset

    return Dataset.from_dict(
        {"input_ids": [list(e.input_ids) for e in examples], "labels": [list(e.labels) for e in examples]}
    )


def _placed(entries: Tensor, gradient: Tensor) -> Tensor:
    """The entries on the gradient's device, and sharded like it."""
    if isinstance(gradient, DTensor):
        return distribute_tensor(entries.to(gradient.device), gradient.device_mesh, gradient.placements)
    return entries.to(gradient.device)


class _Watch(TrainerCallback):
    """Tells of whole checkpoints, shows progress, and stops at a loss that is no number."""

    def __init__(self, saved: Callable[[int], object], stack: ExitStack) -> None:
        self._saved, self._stack = saved, stack

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            self._bar = self._stack.enter_context(progress("Training", state.max_steps, "steps", state.global_step))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            self._bar.advance()

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        if not math.isfinite((logs or {}).get("loss", 0.0)):
            raise CliffscopeError(
                f"repair: the loss is {logs['loss']} in step {state.global_step}; a smaller learning_rate (now "
                f"{args.learning_rate:g}) or precision float32 may help."
            )

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            self._saved(state.global_step)
