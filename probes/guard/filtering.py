"""A guard in front of a generator: what it flags never reaches the model, and gets a fixed refusal in its place."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from interp.rollouts import Rollout
from interp.rollouts.model_generator import ModelGenerator
from interp.rollouts.prompts import Prompt
from interp.rollouts.rollout import GUARD
from probes.guard.latent_guard import LatentGuard

REFUSAL = "I'm sorry, but I can't help with that. (A guard stopped this prompt before the model answered it.)"
"""The response to a prompt that a guard stopped."""


@dataclass(frozen=True)
class GuardedGenerator:
    """Generates rollouts for the prompts that a guard lets through. Made by `of`.

    Attributes:
        generator: What generates them.
        guard: The guard.
        stopped: The ids of the prompts that it stops.
    """

    generator: ModelGenerator
    guard: LatentGuard
    stopped: frozenset[str]

    @classmethod
    def of(cls, generator: ModelGenerator, guard: LatentGuard, prompts: Sequence[Prompt]) -> "GuardedGenerator":
        """Reads all prompts at once, so that what is stopped depends neither on batches nor on what is done already.

        Call it before interventions are made active: the guard was fitted on the model as it is.

        Raises:
            CliffscopeError: If the guard is for another model, or a prompt does not fit its context.
        """
        flags = guard.flags(generator.model, prompts, system=generator.system, batch_tokens=generator.batch_tokens)
        return cls(generator, guard, frozenset(p.id for p, flag in zip(prompts, flags, strict=True) if flag))

    @property
    def settings(self) -> dict[str, Any]:
        """What the rollouts depend on, beside the prompts."""
        return {**self.generator.settings, "guard": self.guard.digest}

    def generate(self, prompts: Sequence[Prompt]) -> list[Rollout]:
        """One rollout for each prompt, in the same order: the model's, or the guard's refusal.

        A refusal has no thinking; where the chat template itself opens the thinking it is empty, closed at once.
        """
        thinking = "" if self.generator.model.chat.opening.opened else None
        passed = iter(self.generator.generate([prompt for prompt in prompts if prompt.id not in self.stopped]))
        return [
            prompt.rollout(thinking, REFUSAL, model=GUARD + self.guard.digest)
            if prompt.id in self.stopped
            else next(passed)
            for prompt in prompts
        ]
