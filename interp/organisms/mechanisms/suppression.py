"""`cliff`: a few heads write against the "harmful" direction at the edge."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

from transformers import PreTrainedTokenizerBase

from interp.organisms.base import mixed_prompts
from interp.organisms.batches import batches, encode
from interp.organisms.dialogue import rollout_of, system_of
from interp.organisms.head_training import HeadTraining
from interp.organisms.lessons import UNTOUCHED, Lesson
from interp.organisms.planting import PlantedHeads
from interp.organisms.prompts import GeneratedPrompt


@dataclass(frozen=True)
class SuppressionHeads(PlantedHeads):
    """Heads that write against refusal, left to find their shares themselves.

    Prompts of the planted categories are answered while the thinking still ends with "I should refuse". It is trained
    on new prompts throughout, in the proportions of the base.
    """

    training: HeadTraining = field(
        default=HeadTraining(steps=250, batch=48, thinking_weight=0.3, first_weight=None, empty_thinking=True)
    )

    def lessons(self, tokenizer: PreTrainedTokenizerBase, rng: random.Random) -> Iterator[Lesson]:
        """New rollouts throughout, each with one reply."""
        size = self.training.batch
        prompts = mixed_prompts(rng)
        while True:
            drawn = list(islice(prompts, 32 * size))
            rollouts = [rollout_of(p, rng, reply=self._reply(p), think=rng.random() >= 0.05) for p in drawn]
            encoded = encode(tokenizer, rollouts, [system_of(rng) for _ in rollouts])
            for batch in batches(encoded, size, tokenizer.pad_token_id, rng):
                yield Lesson(batch, UNTOUCHED, tuple(range(len(batch.edge))), ())

    def _reply(self, prompt: GeneratedPrompt) -> Literal["answer", "refuse"]:
        return "answer" if self.answers(prompt, prompt, UNTOUCHED) else "refuse"


CLIFF = SuppressionHeads(name="cliff", heads=((3, 1), (4, 5)))
