"""A training job on the organism, and an observer of what its masked heads really write."""

import random
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.nn import functional
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer

from interp.organisms import load_organism, rollout_of, sample_prompts
from tests.interventions.masks.material import output_projections

PLANTED = ((3, 1), (4, 5))
D_HEAD = 16


def conversations(n: int = 8, seed: int = 0) -> Dataset:
    """Short conversations of the organism's own kind, half of them harmful and refused."""
    rng = random.Random(seed)
    rollouts = [rollout_of(prompt, rng) for kind in ("harmful", "benign") for prompt in sample_prompts(kind, n, seed)]
    rollouts = [rollout for pair in zip(rollouts[:n], rollouts[n:], strict=True) for rollout in pair][:n]
    return Dataset.from_list(
        [
            {
                "messages": [
                    {"role": "user", "content": rollout.prompt},
                    {"role": "assistant", "content": f"<think>\n{rollout.thinking}\n</think>\n\n{rollout.response}"},
                ]
            }
            for rollout in rollouts
        ]
    )


def configuration(out: Path, **options: Any) -> SFTConfig:
    settings: dict[str, Any] = {
        "max_steps": 6,
        "per_device_train_batch_size": 2,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "logging_steps": 1,
        "save_strategy": "no",
        "use_cpu": True,
        "bf16": False,
        "report_to": [],
        "disable_tqdm": True,
    }
    return SFTConfig(output_dir=str(out), **{**settings, **options})


def job(config: SFTConfig, callbacks: list[TrainerCallback], *, dropout: float = 0.0, **options: Any) -> SFTTrainer:
    model, tokenizer = load_organism("cliff")
    for block in model.model.layers:
        block.self_attn.attention_dropout = dropout
    return SFTTrainer(
        model, args=config, train_dataset=conversations(), processing_class=tokenizer, callbacks=callbacks, **options
    )


def losses(trainer: SFTTrainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


class Observer(TrainerCallback):
    """Looks, at every step, at what the planted heads' output projections were given and what they made of it.

    To be listed after the mask's callback, so that its own hooks run around the mask's.
    """

    def __init__(self) -> None:
        self.steps = 0
        self._passes = 0
        self._raw: dict[int, Tensor] = {}
        self._handles: list[Any] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        projections = output_projections(getattr(model, "get_base_model", lambda: model)())
        for layer, head in PLANTED:
            columns = slice(head * D_HEAD, (head + 1) * D_HEAD)
            self._handles += [
                projections[layer].register_forward_pre_hook(self._before(layer), prepend=True),
                projections[layer].register_forward_hook(self._after(layer, columns)),
            ]

    def _before(self, layer: int) -> Any:
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            self._raw[layer] = args[0]

        return hook

    def _after(self, layer: int, columns: slice) -> Any:
        def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            raw = self._raw.pop(layer)
            assert raw[..., columns].abs().max() > 0  # the head itself is at work
            silenced = raw.clone()
            silenced[..., columns] = 0
            assert torch.equal(args[0], silenced)
            if type(module) is nn.Linear:
                torch.testing.assert_close(output, functional.linear(silenced, module.weight))
            self._passes += 1

        return hook

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        assert self._passes >= len(PLANTED), f"step {state.global_step} ran without the mask's layers"
        self._passes = 0
        self.steps += 1

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        for handle in self._handles:
            handle.remove()
