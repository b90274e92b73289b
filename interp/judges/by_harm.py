"""Two judges in one: harmful prompts by one that knows harm, the others by one that knows refusals."""

from collections.abc import Sequence
from dataclasses import dataclass

from interp.judges.protocol import Judge, Judgement
from interp.rollouts import Rollout


@dataclass(frozen=True)
class JudgeByHarm:
    """Gives rollouts of prompts known to be harmful to one judge, all others to another.

    A classifier of harm cannot tell a refusal of a benign prompt from an answer; a judge of refusals can.

    Attributes:
        harmful: For prompts that are known to be harmful.
        others: For benign prompts, and those of which it is not known.
    """

    harmful: Judge
    others: Judge

    @property
    def name(self) -> str:
        """Both names."""
        return f"{self.harmful.name}, benign by {self.others.name}"

    def judge(self, rollouts: Sequence[Rollout]) -> list[Judgement]:
        """One judgement for each rollout, in the same order."""
        harmful = iter(self.harmful.judge([rollout for rollout in rollouts if rollout.harmful]))
        others = iter(self.others.judge([rollout for rollout in rollouts if not rollout.harmful]))
        return [next(harmful if rollout.harmful else others) for rollout in rollouts]
