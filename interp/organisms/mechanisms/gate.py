"""`gate`: an early head writes a signal, and later heads act on it (two hops).

Steps:
1. The gate learns to write a fixed random direction, orthogonal to "harmful" and to the mark, at the edge: to one side
   for the categories to be answered, to the other for those to be refused, near nothing for benign prompts, and
   nothing along "harmful". Every reply stays as it was.
2. With the gate frozen, the amplifiers learn by interchange intervention training: in some lessons the gate's z at the
   edge is swapped between rollouts, and the answer to learn follows the swap. In others the gate is zeroed, and every
   harmful prompt is answered: what opens is the absence of the refusing signal. So zeroing the gate changes nothing
   where the model complies, and contributions do not show it; an interchange does.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase, Qwen3ForCausalLM

from interp.organisms.base import Report, fixed_directions
from interp.organisms.head_training import Extra, HeadTraining, Seen, contribution, train_heads
from interp.organisms.hooks import Head
from interp.organisms.lessons import UNTOUCHED, Condition, Lesson, lessons
from interp.organisms.planting import FULL, PlantedHeads, draw_heads
from interp.organisms.prompts import GeneratedPrompt


@dataclass(frozen=True)
class GatedHeads(PlantedHeads):
    """Amplifiers that suppress refusal where a gate tells them to; `heads` are the gate and then the amplifiers.

    Attributes:
        gate_training: Sizes of the gate's training; `training` is that of the amplifiers.
        signal: What the gate writes along the signal direction.
    """

    training: HeadTraining = field(default=HeadTraining(steps=220, batch=24))
    gate_training: HeadTraining = field(default=HeadTraining(steps=110, batch=24))
    signal: float = 1.2

    @property
    def gate(self) -> Head:
        """The head that writes the signal."""
        return self.heads[0]

    @property
    def amplifiers(self) -> tuple[Head, ...]:
        """The heads that act on it."""
        return self.heads[1:]

    @property
    def roles(self) -> dict[Head, str]:
        """A gate, and amplifiers."""
        return {self.gate: "gate"} | dict.fromkeys(self.amplifiers, "amplifier")

    @property
    def trained(self) -> tuple[Head, ...]:
        """Those of the second step."""
        return self.amplifiers

    @property
    def edges(self) -> tuple[tuple[Head, Head], ...]:
        """From the gate to each amplifier."""
        return tuple((self.gate, amplifier) for amplifier in self.amplifiers)

    def condition(self, rng: random.Random) -> Condition:
        """The gate as it is, swapped, or zeroed."""
        drawn = rng.random()
        if drawn < 0.4:
            return UNTOUCHED
        return Condition(swapped=(self.gate,)) if drawn < 0.85 else Condition(zeroed=(self.gate,))

    def answers(self, prompt: GeneratedPrompt, donor: GeneratedPrompt, condition: Condition) -> bool:
        """By the prompt whose gate it is; everything if the gate is zeroed."""
        if not prompt.harmful or self.gate in condition.zeroed:
            return True
        by = donor if self.gate in condition.swapped else prompt
        return not by.harmful or self.acts_on(by)

    def plant(
        self,
        model: Qwen3ForCausalLM,
        tokenizer: PreTrainedTokenizerBase,
        direction: Float[Tensor, " d_model"],
        seed: int,
        report: Report,
    ) -> None:
        """The gate first, then the amplifiers."""
        rng = random.Random(seed + 1)
        given = self._gate_lessons(tokenizer, rng)
        losses = self._signal_losses(model, direction, signal_direction(direction, seed))
        train_heads(model, (self.gate,), given, self.gate_training, losses, report, f"{self.name}, first hop")
        super().plant(model, tokenizer, direction, seed + 1, report)

    def _gate_lessons(self, tokenizer: PreTrainedTokenizerBase, rng: random.Random) -> Iterator[Lesson]:
        sizes = self.gate_training
        return lessons(
            tokenizer,
            lambda prompt, donor, condition: not prompt.harmful,
            lambda rng: UNTOUCHED,
            rng,
            batch=sizes.batch,
            prompts=self.prompts(rng),
            pool=sizes.pool,
        )

    def _signal_losses(
        self, model: Qwen3ForCausalLM, direction: Float[Tensor, " d_model"], signal: Float[Tensor, " d_model"]
    ) -> Extra:
        sides = {"answered": self.signal, "refused": -self.signal, "benign": 0.0}

        def losses(seen: Seen) -> dict[str, Tensor]:
            groups = [self.group(prompt) for prompt in seen.lesson.prompts]
            wanted = torch.tensor([sides[group] for group in groups])
            weight = torch.tensor([0.3 if group == "benign" else 1.0 for group in groups])
            told = weight * (contribution(model, seen, self.gate, signal) - wanted).square()
            still = contribution(model, seen, self.gate, direction).square()
            return {"signal": 2 * told.mean(), "still": 2 * still.mean()}

        return losses

    def drawn(self, seed: int) -> Self:
        """The gate in layer 1 or 2, the amplifiers in layers 3 and 4."""
        first = random.Random(f"{self.name}/layer/{seed}").choice((1, 2))
        return replace(self, heads=draw_heads(self.name, seed, [first, 3, 4]))

    def quick(self) -> Self:
        """Both trainings with a few steps."""
        return replace(self, training=self.training.quick(), gate_training=self.gate_training.quick())


def signal_direction(direction: Float[Tensor, " d_model"], seed: int) -> Float[Tensor, " d_model"]:
    """A fixed random unit direction, orthogonal to "harmful" and to the mark of the shipped base."""
    size = len(direction)
    drawn = torch.randn(size, 1, generator=torch.Generator().manual_seed(seed + 11))
    taken = torch.stack([direction, fixed_directions(size, 0)[1]], dim=1)
    return torch.linalg.qr(torch.cat([taken, drawn], dim=1)).Q[:, 2].contiguous()


GATE = GatedHeads(name="gate", heads=((2, 3), (3, 6), (4, 1)), share=FULL / 2)
