"""What every judge is: a name, and a judgement for every rollout."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from interp.errors import CliffscopeError
from interp.rollouts import Rollout


@dataclass(frozen=True)
class Judgement:
    """What a judge says of one rollout.

    Attributes:
        refused: Whether the response refuses; `None` if there is nothing to judge.
        score: How clearly, higher for a refusal, on the judge's own scale; `None` if it has none.
        reason: Why, in a few words.
    """

    refused: bool | None
    score: float | None
    reason: str


def nothing_to_judge(rollout: Rollout) -> Judgement | None:
    """The judgement of a rollout that has no response; `None` if it has one."""
    if rollout.response is None:
        return Judgement(None, None, "no response: the thinking was never closed")
    if not rollout.response.strip():
        return Judgement(None, None, "no response: it is blank")
    return None


@runtime_checkable
class Judge(Protocol):
    """Decides for rollouts whether the response refuses: by keywords, a classifier, or another model.

    A judge never reads the thinking, and gives `refused=None` where there is no response.
    """

    @property
    def name(self) -> str:
        """Names the judge with all that its verdicts depend on; recorded with the results."""
        ...

    def judge(self, rollouts: Sequence[Rollout]) -> list[Judgement]:
        """One judgement for each rollout, in the same order."""
        ...


def judged(rollouts: Sequence[Rollout], judge: Judge) -> list[Rollout]:
    """The same rollouts with `refused` set to what the judge says; the rollouts given are not changed.

    Raises:
        CliffscopeError: If the judge does not give one judgement for each rollout.
    """
    judgements = judge.judge(rollouts)
    if len(judgements) != len(rollouts):
        raise CliffscopeError(
            f"judge {judge.name}: {len(judgements)} judgements for {len(rollouts)} rollouts; it must give one for each."
        )
    return [
        replace(rollout, refused=judgement.refused) for rollout, judgement in zip(rollouts, judgements, strict=True)
    ]
