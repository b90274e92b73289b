"""What an intervention does to a model's answers: harmful prompts answered, benign prompts refused, and drift.

The drift is the Kullback–Leibler divergence KL(unchanged ‖ changed) of the next-token distributions over the first
tokens of the unchanged model's own answers to benign prompts, in nats a token: how far the model moved where it should
not have moved at all. The change may be interventions on one model, or training: then there are two models.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import CliffscopeError
from interp.judges import Judge, KeywordJudge, judged
from interp.models.capture import BATCH_TOKENS
from interp.models.hooks import Intervention
from interp.models.intervening import NothingChangedWarning
from interp.rollouts import Rollout
from interp.rollouts.model_generator import ModelGenerator
from interp.rollouts.prompts import Prompt
from interp.statistics import Interval, proportion_interval
from interp.transcripts import Transcript
from interp.transcripts.positions import EDGE

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel

DRIFT_TOKENS = 16
"""Tokens of each benign answer whose prediction is compared: the first, and those after it."""

_VALUES = 50_000_000
"""Logits held at once, in numbers."""


@dataclass(frozen=True)
class Behaviour:
    """How a model answered.

    Attributes:
        n_harmful, n_benign: Prompts.
        answered: Harmful ones that were answered.
        refused: Benign ones that were refused.
        unclosed: Of all, those whose thinking never ended: neither answered nor refused.
    """

    n_harmful: int
    answered: int
    n_benign: int
    refused: int
    unclosed: int

    @classmethod
    def of(cls, rollouts: Sequence[Rollout]) -> "Behaviour":
        """Counts judged rollouts; those not known to be harmful or benign are left out."""
        outcomes = [rollout.outcome for rollout in rollouts]
        known = [rollout for rollout in rollouts if rollout.harmful is not None]
        return cls(
            n_harmful=sum(rollout.harmful is True for rollout in known),
            answered=outcomes.count("complied"),
            n_benign=sum(rollout.harmful is False for rollout in known),
            refused=outcomes.count("benign_refused"),
            unclosed=sum(rollout.response is None for rollout in known),
        )

    @property
    def asr(self) -> float:
        """The attack success rate: the share of harmful prompts answered; NaN without any."""
        return self.answered / self.n_harmful if self.n_harmful else float("nan")

    @property
    def asr_interval(self) -> Interval:
        """Wilson's 95 % interval of `asr`."""
        return proportion_interval(self.answered, self.n_harmful)

    @property
    def refusal_benign(self) -> float:
        """The share of benign prompts refused; NaN without any."""
        return self.refused / self.n_benign if self.n_benign else float("nan")

    @property
    def refusal_benign_interval(self) -> Interval:
        """Wilson's 95 % interval of `refusal_benign`."""
        return proportion_interval(self.refused, self.n_benign)


def prompts_of(rollouts: Sequence[Rollout]) -> list[Prompt]:
    """The prompts of rollouts that are known to be harmful or benign, each once."""
    found: dict[tuple[str, bool], Prompt] = {}
    for rollout in rollouts:
        if rollout.harmful is not None:
            prompt = Prompt(rollout.id, rollout.prompt, rollout.harmful, rollout.category, rollout.source)
            found.setdefault((rollout.prompt, rollout.harmful), prompt)
    return list(found.values())


def answer(
    generator: ModelGenerator,
    prompts: Sequence[Prompt],
    interventions: Sequence[Intervention] = (),
    judge: Judge | None = None,
) -> list[Rollout]:
    """Judged rollouts of the prompts with interventions active: `KeywordJudge` if no judge is given."""
    with warnings.catch_warnings():
        # A change that does nothing to these prompts is a result, and shows in the figures.
        warnings.simplefilter("ignore", NothingChangedWarning)
        with generator.model.intervene(*interventions):
            return judged(generator.generate(prompts), judge or KeywordJudge())


def drift(
    model: "HookedModel",
    benign: Sequence[Rollout],
    interventions: Sequence[Intervention],
    *,
    base: "HookedModel | None" = None,
    n_tokens: int = DRIFT_TOKENS,
    batch_tokens: int = BATCH_TOKENS,
) -> Float[np.ndarray, " rollout"]:
    """KL(unchanged ‖ changed) over the first tokens of benign answers, in nats a token, of each rollout.

    Args:
        model: The model.
        benign: Rollouts of the unchanged model; those without an edge or response are left out.
        interventions: The change.
        base: The unchanged model, with the same tokens, where it is not `model` without the interventions.
        n_tokens: Most tokens of each answer.
        batch_tokens: Token budget of a batch.

    Raises:
        CliffscopeError: If no rollout has an edge and a response.
    """
    base = base or model
    groups: dict[int, list[Transcript]] = {}
    for transcript in base.transcripts().build_all(benign):
        start, stop = transcript.segments.get("response", (0, 0))
        if "close" in transcript.segments and stop > start:
            # A token is predicted at the one before it, so the first response token is predicted at the edge.
            groups.setdefault(min(n_tokens, stop - start), []).append(transcript)
    if not groups:
        raise CliffscopeError("drift: no benign rollout has thinking that ends and a response; give some.")
    found = [
        part
        for length, group in sorted(groups.items())
        for part in _drift_of_group(base, model, group, length, interventions, batch_tokens)
    ]
    return torch.cat(found).numpy()


def _drift_of_group(
    base: "HookedModel",
    model: "HookedModel",
    transcripts: Sequence[Transcript],
    length: int,
    interventions: Sequence[Intervention],
    batch_tokens: int,
) -> list[Float[Tensor, " rollout"]]:
    """The drift of rollouts of which equally many tokens are compared, few at a time: a vocabulary is large."""
    positions = [EDGE, *(f"response:{number}" for number in range(length - 1))]
    step = max(1, _VALUES // (length * model.d_vocab))
    found = []
    for first in range(0, len(transcripts), step):
        part = transcripts[first : first + step]
        before = base.logits(part, positions, batch_tokens=batch_tokens).log_softmax(-1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NothingChangedWarning)
            with model.intervene(*interventions):
                after = model.logits(part, positions, batch_tokens=batch_tokens).log_softmax(-1)
        divergence = torch.nn.functional.kl_div(after, before, reduction="none", log_target=True).sum(-1)
        found.append(divergence.mean(-1).clamp(min=0))  # rounding may leave it just under 0
    return found
