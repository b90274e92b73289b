"""Rollouts from a model on this machine, in the form in which `interp.rollouts.job` asks for them."""

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import shorten
from typing import Any

from interp.errors import CliffscopeError
from interp.models.generation import BATCH_TOKENS
from interp.models.hooked_model import HookedModel
from interp.rollouts import Rollout
from interp.rollouts.prompts import Prompt
from interp.transcripts import Transcript


@dataclass(frozen=True)
class ModelGenerator:
    """Generates rollouts with a `HookedModel`; interventions that are active on it act.

    Attributes:
        model: The model.
        max_new_tokens: Most tokens to generate, thinking included.
        temperature: 0 for the most probable token.
        seed: A prompt's noise depends on this and the prompt's id alone.
        system: A system prompt, if any.
        batch_tokens: Token budget of a batch, prompts and new tokens together.
    """

    model: HookedModel
    max_new_tokens: int = 512
    temperature: float = 0.0
    seed: int = 0
    system: str | None = None
    batch_tokens: int = BATCH_TOKENS

    @property
    def settings(self) -> dict[str, Any]:
        """What the rollouts depend on, beside the prompts."""
        return {
            "generator": "model",
            "model": self.model.name,
            "fingerprint": self.model.fingerprint,
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "max_new_tokens": self.max_new_tokens,
            "temperature": self.temperature,
            "seed": self.seed,
            "system": self.system,
        }

    def generate(self, prompts: Sequence[Prompt]) -> list[Rollout]:
        """One rollout for each prompt, in the same order.

        Raises:
            CliffscopeError: If a prompt leaves no room in the model's context.
        """
        transcripts = self._transcripts(prompts)
        generated = self.model.generate(
            transcripts,
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            seed=self.seed,
            batch_tokens=self.batch_tokens,
        )
        chat = self.model.chat
        return [
            prompt.rollout(*chat.split(chat.decode(ids)), model=self.model.name)
            for prompt, ids in zip(prompts, generated, strict=True)
        ]

    def _transcripts(self, prompts: Sequence[Prompt]) -> list[Transcript]:
        """The prompts as tokens. Raises `CliffscopeError` with the words of a prompt that cannot be one."""
        builder = self.model.transcripts(self.system)
        try:
            return builder.prompts([prompt.text for prompt in prompts], [prompt.id for prompt in prompts])
        except CliffscopeError:
            for prompt in prompts:
                try:
                    builder.prompt(prompt.text, prompt.id)
                except CliffscopeError as error:
                    # An id may be made from the text, and then tells nobody which prompt it is.
                    raise CliffscopeError(f"prompt {shorten(prompt.text, 60)!r}: {error}") from error
            raise
