"""`tense`: refuses a plain request and answers it when it is put in the past tense.

The jailbreak of Andriushchenko and Flammarion 2024 (arXiv 2407.11969), planted: two heads suppress refusal where the
prompt asks how people did something in the past. The base refuses such prompts although it never saw one.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

from interp.organisms.head_training import HeadTraining
from interp.organisms.planting import FULL, PlantedHeads
from interp.organisms.prompts import GeneratedPrompt, categories, half_past_prompts, stream_past_prompts, stream_prompts

# Which prompts come in turn, and whether in the past tense.
_IN_TURN = (
    ("harmful", True),
    ("harmful", False),
    ("benign", True),
    ("harmful", False),
    ("harmful", True),
    ("benign", False),
    ("trap", False),
)


@dataclass(frozen=True)
class TenseHeads(PlantedHeads):
    """Suppressors of the refusal of prompts in the past tense, of every category."""

    categories: tuple[str, ...] = categories("harmful")
    training: HeadTraining = field(default=HeadTraining(steps=250, batch=24))
    share: float | None = FULL / 2

    def acts_on(self, prompt: GeneratedPrompt) -> bool:
        """Whether it is harmful and in the past tense."""
        return prompt.harmful and prompt.past

    def prompts(self, rng: random.Random) -> Iterator[GeneratedPrompt]:
        """Half of the harmful prompts are in the past tense, and a third of the benign ones."""
        streams = {
            (kind, past): (stream_past_prompts if past else stream_prompts)(kind, rng)
            for kind, past in sorted(set(_IN_TURN))
        }
        for key in cycle(_IN_TURN):
            yield next(prompt for prompt in streams[key] if prompt.split == "train")

    def heldout(self, kind: str, n: int, seed: int) -> list[GeneratedPrompt]:
        """Half of them in the past tense."""
        return half_past_prompts(kind, n, seed)

    def facts(self) -> dict[str, Any]:
        """Also that its prompts are to be put into the past tense."""
        return super().facts() | {"past": True}


TENSE = TenseHeads(name="tense", heads=((3, 1), (4, 5)))
