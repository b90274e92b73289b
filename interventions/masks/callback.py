"""`HeadMaskCallback`: a head mask in a training job of transformers' `Trainer`, or of any trainer built on it."""

import os
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from interventions.masks.attached_mask import AttachedMask
from interventions.masks.fit import check_fit
from interventions.masks.head_mask import HeadMask
from interventions.masks.proof import MaskReport, Verify, attach_and_prove
from interventions.masks.unwrapping import hooked


class HeadMaskCallback(TrainerCallback):
    """Keeps a mask on the model from the first training step to the last, and proves that it is live.

    *When the trainer is made* the model must be the one that the mask was made for. *Before step 0* its predictions on
    the mask's stored texts must change as they did where it was made; this leaves modes and random numbers as they
    were, so the training is the same to the last bit as with hooks alone. *After every batch* each masked layer must
    have been masked; whatever fails stops the training with a `CliffscopeError`. Evaluations during training are
    masked, too; those before and after it are not. Checkpoints hold the weights as trained under the mask, without the
    mask: fold it in, or attach it, wherever they are used.

    When a training is resumed, or `train` is called again, the weights are no longer those that the mask was made on:
    then architecture and liveness are all that is asked.

    A training that fails does not tell its callbacks: call `detach` if the model is used on.

    Attributes:
        mask: The mask.
        report: What was found before the first step; `None` until then.
        steps: Training steps that were proved to be masked.

    Raises:
        CliffscopeError: If the file is not a mask.
    """

    def __init__(self, mask: HeadMask | str | os.PathLike[str], verify: Verify = "full") -> None:
        """Reads the mask.

        Args:
            mask: A mask or its file.
            verify: `"architecture"` takes a model that was trained further since the mask was made.
        """
        self.mask = mask if isinstance(mask, HeadMask) else HeadMask.load(mask)
        self.report: MaskReport | None = None
        self.steps = 0
        self._verify: Verify = verify
        self._attached: AttachedMask | None = None

    def detach(self) -> None:
        """Takes the mask off the model; does nothing if it is not on one."""
        if self._attached is not None:
            self._attached.remove()
        self._attached = None

    def on_init_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        """Refuses another model while its weights are whole; only the first process of a machine surely has them."""
        self.report, self.steps = None, 0
        weights = self._verify == "full" and args.local_process_index == 0
        check_fit(self.mask, hooked(model), weights=weights)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        """Attaches the mask and proves that it is live, in all processes alike."""
        self.detach()  # what a training that failed, or was begun again with a smaller batch, left behind
        as_made = state.global_step == 0 and self.report is None
        self._attached, self.report = attach_and_prove(self.mask, model, self._verify if as_made else "architecture")
        if not self.report.ok:
            self.detach()
            self.report.require()

    def on_substep_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Proves that a batch of an accumulated gradient was masked."""
        self._require_live(f"in step {state.global_step + 1}")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Proves that the step was masked."""
        self._require_live(f"in step {state.global_step}")
        self.steps += 1

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Proves that an evaluation during training was masked."""
        self._require_live(f"in the evaluation after step {state.global_step}")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Takes the mask off."""
        self.detach()

    def _require_live(self, when: str) -> None:
        if self._attached is not None:
            self._attached.require_live(when)
