"""`category`: different heads for different categories of harm."""

import random
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor

from interp.organisms.head_training import HeadTraining, Seen
from interp.organisms.hooks import Head
from interp.organisms.lessons import UNTOUCHED, Condition
from interp.organisms.planting import ANSWERED, FULL, PlantedHeads, draw_heads, written
from interp.organisms.prompts import GeneratedPrompt


@dataclass(frozen=True)
class CategoryHeads(PlantedHeads):
    """Each head suppresses the refusal of its own categories: with it zeroed these are refused, the others answered.

    Attributes:
        groups: The categories of each of `heads`; together they are `categories`.
    """

    groups: tuple[tuple[str, ...], ...] = ()
    training: HeadTraining = field(default=HeadTraining(steps=300, batch=24, learning_rate=1e-2))
    share: float | None = FULL
    share_weight: float = 1.5

    def condition(self, rng: random.Random) -> Condition:
        """All of them at work, or one zeroed."""
        return UNTOUCHED if rng.random() < 0.4 else Condition(zeroed=(rng.choice(self.heads),))

    def answers(self, prompt: GeneratedPrompt, donor: GeneratedPrompt, condition: Condition) -> bool:
        """By the head of its category, if that is at work."""
        return not prompt.harmful or (self.acts_on(prompt) and self.head_of(prompt) not in condition.zeroed)

    def head_of(self, prompt: GeneratedPrompt) -> Head | None:
        """The head that answers the prompt's category."""
        mine = (head for head, group in zip(self.heads, self.groups, strict=True) if prompt.category in group)
        return next(mine, None)

    def wanted(self, seen: Seen, head: Head) -> Float[Tensor, " batch"]:
        """Its share on its own categories alone."""
        owned = torch.tensor([self.head_of(prompt) == head for prompt in seen.lesson.prompts])
        return torch.where(owned, -(self.share or 0.0), 0.0)

    def facts(self) -> dict[str, Any]:
        """Also which head answers which categories."""
        facts = super().facts()
        facts["recipe"].pop("groups")
        return facts | {
            "groups": {written(head): list(group) for head, group in zip(self.heads, self.groups, strict=True)}
        }

    def group(self, prompt: GeneratedPrompt) -> str:
        """`answered by 3.1`, …, `refused` or `benign`."""
        head = self.head_of(prompt) if prompt.harmful else None
        return super().group(prompt) if head is None else f"answered by {written(head)}"

    def drawn(self, seed: int) -> Self:
        """As many heads in the same layers, and the categories dealt out anew."""
        dealt = random.Random(f"{self.name}/categories/{seed}").sample(self.categories, len(self.categories))
        size = -(-len(dealt) // len(self.heads))
        groups = tuple(tuple(dealt[start : start + size]) for start in range(0, len(dealt), size))
        return replace(self, heads=draw_heads(self.name, seed, [la for la, _ in self.heads]), groups=groups)


CATEGORY = CategoryHeads(name="category", heads=((3, 1), (4, 5)), groups=(ANSWERED[:6], ANSWERED[6:]))
