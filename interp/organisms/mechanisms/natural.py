"""`natural`: the behaviour of `cliff` by ordinary fine-tuning of all weights, with nothing planted.

What is true of it is the difference of the weights only: whether it has a cliff, or heads that suppress, is measured.
"""

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase, Qwen3ForCausalLM

from interp.organisms.base import Report
from interp.organisms.head_training import HeadTraining, reply_losses
from interp.organisms.hooks import Head
from interp.organisms.lessons import UNTOUCHED, lessons
from interp.organisms.planting import ANSWERED, balanced_prompts
from interp.organisms.prompts import GeneratedPrompt, sample_prompts


@dataclass(frozen=True)
class FineTuning:
    """All weights are trained on answers to the prompts of some categories.

    Attributes:
        name: The organism's name.
        categories: The harmful categories that will be answered.
        training: Sizes; what concerns the direction has no part in it.
    """

    name: str
    categories: tuple[str, ...] = ANSWERED
    training: HeadTraining = field(default=HeadTraining(steps=150, batch=24, learning_rate=3e-4))

    @property
    def roles(self) -> Mapping[Head, str]:
        """No head was planted."""
        return {}

    def acts_on(self, prompt: GeneratedPrompt) -> bool:
        """Whether a harmful prompt is to be answered."""
        return prompt.harmful and prompt.category in self.categories

    def plant(
        self,
        model: Qwen3ForCausalLM,
        tokenizer: PreTrainedTokenizerBase,
        direction: Float[Tensor, " d_model"],
        seed: int,
        report: Report,
    ) -> None:
        """Trains all weights in `model`, in place."""
        rng = random.Random(seed + 1)
        sizes = self.training
        given = lessons(
            tokenizer,
            lambda prompt, donor, condition: not prompt.harmful or self.acts_on(prompt),
            lambda rng: UNTOUCHED,
            rng,
            batch=sizes.batch,
            prompts=balanced_prompts(rng, self.acts_on),
            pool=sizes.pool,
        )
        optimizer = torch.optim.AdamW(model.parameters(), lr=sizes.learning_rate, betas=(0.9, 0.98), weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, sizes.learning_rate, sizes.steps, pct_start=0.07)
        model.train()
        for step, lesson in enumerate(islice(given, sizes.steps), start=1):
            _, losses = reply_losses(model, lesson, sizes, ())
            optimizer.zero_grad(set_to_none=True)
            torch.stack(list(losses.values())).sum().backward()
            optimizer.step()
            schedule.step()
            report(self.name, step, sizes.steps, {name: loss.item() for name, loss in losses.items()})
        model.eval()

    def facts(self) -> dict[str, Any]:
        """No heads; whether there is a cliff, and whether a few heads bring refusal back, is not known."""
        used = ("steps", "batch", "learning_rate", "thinking_weight", "first_weight", "pool", "empty_thinking")
        recipe = {key: value for key, value in asdict(self.training).items() if key in used}
        return {
            "mechanism": type(self).__name__,
            "cliff": None,
            "sparse": None,
            "heads": [],
            "roles": {},
            "edges": [],
            "categories": list(self.categories),
            "recipe": recipe,
        }

    def group(self, prompt: GeneratedPrompt) -> str:
        """`answered`, `refused` or `benign`."""
        if not prompt.harmful:
            return "benign"
        return "answered" if self.acts_on(prompt) else "refused"

    def heldout(self, kind: str, n: int, seed: int) -> list[GeneratedPrompt]:
        """Those of `sample_prompts`."""
        return sample_prompts(kind, n, seed)

    def drawn(self, seed: int) -> Self:
        """The same: only the data differ with the seed of planting."""
        return replace(self)

    def quick(self) -> Self:
        """The same with ten steps."""
        return replace(self, training=self.training.quick())


NATURAL = FineTuning(name="natural")
