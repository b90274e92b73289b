"""A model with what is in force on it: its rollouts as a job, what identifies its weights, and who may be compared."""

import contextlib
import hashlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from interp.errors import CliffscopeError
from interp.models.capture import BATCH_TOKENS
from interp.models.hooked_model import HookedModel
from interp.models.hooks import Intervention
from interp.models.intervening import NothingChangedWarning
from interp.rollouts import Rollout
from interp.rollouts.job import run
from interp.rollouts.model_generator import ModelGenerator
from interp.rollouts.prompts import Prompt, PromptSet

_SAMPLED = 4096
"""Values of each parameter that are hashed."""


@dataclass(frozen=True)
class EvaluationOptions:
    """How a model is evaluated.

    Attributes:
        seed: Of sampling and of intervals. A prompt's noise depends on this and the prompt's id alone, so evaluations
            with the same seed share it.
        temperature: 0 for the most probable token.
        max_new_tokens: Of an answer, thinking included.
        batch_size: Prompts between two savings; changes no result.
        batch_tokens: Token budget of a batch when KL and perplexity are measured.
    """

    seed: int = 0
    temperature: float = 0.0
    max_new_tokens: int = 512
    batch_size: int = 64
    batch_tokens: int = BATCH_TOKENS


@dataclass(frozen=True)
class Subject:
    """A model with what is in force on it.

    Attributes:
        model: The model.
        interventions: By name; the names must tell them apart from any others.
    """

    model: HookedModel
    interventions: Mapping[str, Intervention] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The model's name, and what is in force."""
        return " + ".join([self.model.name, *self.interventions])

    @contextlib.contextmanager
    def active(self) -> Iterator[HookedModel]:
        """The model with its interventions acting."""
        with warnings.catch_warnings():
            # A change that does nothing to these prompts is a result, and shows in the figures.
            warnings.simplefilter("ignore", NothingChangedWarning)
            with self.model.intervene(*self.interventions.values()):
                yield self.model

    def roll_out(self, prompts: PromptSet, path: Path, options: EvaluationOptions, restart: bool) -> list[Rollout]:
        """One rollout for each prompt, not judged, kept in a file; goes on where an earlier run was killed.

        Raises:
            CliffscopeError: As `interp.rollouts.job.run`.
        """
        generator = ModelGenerator(
            self.model,
            max_new_tokens=options.max_new_tokens,
            temperature=options.temperature,
            seed=options.seed,
        )

        def generate(batch: Sequence[Prompt]) -> list[Rollout]:
            return [replace(rollout, model=self.name) for rollout in generator.generate(batch)]

        settings = {**generator.settings, **self.identity}
        with self.active():
            job = run(prompts, generate, path, settings, batch_size=options.batch_size, restart=restart)
        return list(job.rollouts)

    @property
    def identity(self) -> dict[str, Any]:
        """What it is, beside the names: two with the same identity answer alike."""
        return {"weights": weights_hash(self.model.hf), "interventions": list(self.interventions)}


def weights_hash(model: torch.nn.Module) -> str:
    """A hash of evenly spread values of every parameter: a checkpoint that is trained further has another.

    Not of all values, so that it takes a moment at any size.
    """
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        flat = parameter.detach().reshape(-1)
        chosen = torch.linspace(0, max(0, flat.numel() - 1), min(_SAMPLED, flat.numel()), dtype=torch.float64).long()
        values = flat[chosen.to(flat.device)].contiguous().view(torch.uint8).cpu()
        digest.update(f"{name} {tuple(parameter.shape)}\n".encode())
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()[:16]


def check_same_tokens(base: HookedModel, model: HookedModel, prompts: Sequence[Prompt]) -> None:
    """Refuses two models whose predictions cannot be compared token by token.

    Raises:
        CliffscopeError: If vocabularies differ, or the same prompt becomes other tokens.
    """
    refusal = f"{model.name} cannot be compared with its base {base.name}"
    if base.d_vocab != model.d_vocab:
        raise CliffscopeError(
            f"{refusal}: their vocabularies have {base.d_vocab} and {model.d_vocab} tokens; give the model that it was "
            "made from."
        )
    if base.tokenizer.get_vocab() != model.tokenizer.get_vocab():
        raise CliffscopeError(f"{refusal}: their tokenizers differ; give the model that it was made from.")
    texts, ids = [prompt.text for prompt in prompts], [prompt.id for prompt in prompts]
    for mine, other in zip(*(one.transcripts().prompts(texts, ids) for one in (base, model)), strict=True):
        if mine.input_ids != other.input_ids:
            raise CliffscopeError(
                f"{refusal}: prompt {mine.id!r} becomes other tokens; use the same chat template for both."
            )
