"""Which rollouts teach a refusal probe: those that refused a harmful prompt, and those that answered a benign one."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import CliffscopeError
from interp.models.sites import resid_post
from interp.rollouts import Rollout
from interp.transcripts import Transcript
from interp.transcripts.positions import check_position
from probes.inputs import MIN_ROLLOUTS

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel

TEACHES = {"refused": 1, "benign": 0}
"""The outcomes that a probe learns from, with their class. What it is asked about (`complied`) is left out."""


@dataclass(frozen=True)
class Examples:
    """Rollouts with classes, as transcripts that have all the positions asked for.

    Attributes:
        rollouts: Those that teach.
        transcripts: The same as tokens.
        labels: 1 refused a harmful prompt, 0 answered a benign one.
        positions: Where they will be read.
        skipped: How many rollouts were left out, by reason.
    """

    rollouts: tuple[Rollout, ...]
    transcripts: tuple[Transcript, ...]
    labels: Int[Tensor, " rollout"]
    positions: tuple[str, ...]
    skipped: dict[str, int]

    @classmethod
    def of(cls, model: "HookedModel", rollouts: Sequence[Rollout], positions: Sequence[str]) -> "Examples":
        """Chooses the rollouts that teach and have every position.

        Raises:
            CliffscopeError: If a position is unknown, the rollouts are not judged, or too few are left.
        """
        for position in positions:
            check_position(position)
        skipped: Counter[str] = Counter()
        teaching = []
        for rollout in rollouts:
            if rollout.outcome in TEACHES and not rollout.by_guard:
                teaching.append(rollout)
            else:
                skipped[_why_left_out(rollout)] += 1
        chosen: list[tuple[Rollout, Transcript]] = []
        for rollout, transcript in zip(teaching, model.transcripts().build_all(teaching), strict=True):
            try:
                for position in positions:
                    transcript.position(position)
            except CliffscopeError:
                skipped[f"lacks {position}"] += 1
            else:
                chosen.append((rollout, transcript))
        labels = torch.tensor([TEACHES[rollout.outcome] for rollout, _ in chosen], dtype=torch.long)
        _check_enough(labels, skipped)
        return cls(
            rollouts=tuple(rollout for rollout, _ in chosen),
            transcripts=tuple(transcript for _, transcript in chosen),
            labels=labels,
            positions=tuple(positions),
            skipped=dict(skipped),
        )

    @property
    def ids(self) -> list[str]:
        """The rollouts' ids."""
        return [rollout.id for rollout in self.rollouts]

    @property
    def prompts(self) -> list[str]:
        """The rollouts' prompts."""
        return [rollout.prompt for rollout in self.rollouts]

    @property
    def categories(self) -> list[str | None] | None:
        """The rollouts' categories; `None` if no rollout has one."""
        categories = [rollout.category for rollout in self.rollouts]
        return categories if any(category is not None for category in categories) else None

    def activations(
        self, model: "HookedModel", layers: Sequence[int], batch_tokens: int
    ) -> Float[Tensor, "layer rollout position d_model"]:
        """The residual stream after each layer at every position, from one pass."""
        sites = [resid_post(layer) for layer in layers]
        captured = model.capture(self.transcripts, sites, self.positions, batch_tokens=batch_tokens)
        return torch.stack([captured[site] for site in sites])


def _why_left_out(rollout: Rollout) -> str:
    if rollout.by_guard:
        return "stopped by a guard"
    if rollout.outcome != "unknown":
        return {"complied": "answered a harmful prompt", "benign_refused": "refused a benign prompt"}[rollout.outcome]
    if rollout.harmful is None:
        return "not known whether the prompt is harmful"
    return "thinking never closed" if rollout.response is None else "not judged"


def _check_enough(labels: Tensor, skipped: Counter[str]) -> None:
    refused, benign = int((labels == 1).sum()), int((labels == 0).sum())
    reasons = "; ".join(f"{count} left out: {reason}" for reason, count in skipped.most_common())
    if refused == 0 or benign == 0:
        missing = "refused a harmful prompt" if refused == 0 else "answered a benign prompt"
        raise CliffscopeError(
            f"rollouts: one class only: none {missing} ({refused} refused, {benign} benign). {reasons}".strip()
        )
    if refused + benign < MIN_ROLLOUTS:
        raise CliffscopeError(
            f"rollouts: {refused} refused and {benign} benign ones are too few for a probe: at least {MIN_ROLLOUTS} "
            f"are needed. {reasons}".strip()
        )
