"""How far two judges agree on the same rollouts: accuracy, Cohen's κ, and where they differ."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from interp.errors import CliffscopeError
from interp.paired import cohen_kappa, confusion, kappa_interval
from interp.rollouts import Rollout
from interp.statistics import Interval, proportion_interval


@dataclass(frozen=True)
class Agreement:
    """How far two judges agree.

    Attributes:
        n: Rollouts that both have judged; all but `unjudged` is about these.
        accuracy: The share on which they agree; NaN for none.
        accuracy_interval: Wilson's 95 % interval.
        kappa: Cohen's κ; NaN where both always say the same thing.
        kappa_interval: Bootstrap 95 % interval, rollouts of one prompt drawn together.
        both_refused, only_first, only_second, none_refused: How many rollouts both, one or no judge calls refused.
        disagreements: Ids of the rollouts on which they differ, in the order of the first.
        unjudged: How many rollouts only the first has left unjudged, only the second, and both.
    """

    n: int
    accuracy: float
    accuracy_interval: Interval
    kappa: float
    kappa_interval: Interval
    both_refused: int
    only_first: int
    only_second: int
    none_refused: int
    disagreements: tuple[str, ...]
    unjudged: tuple[int, int, int]

    @property
    def payload(self) -> dict[str, Any]:
        """As JSON can hold it, NaN aside."""
        return {
            "n": self.n,
            "accuracy": self.accuracy,
            "accuracy_interval": list(self.accuracy_interval),
            "kappa": self.kappa,
            "kappa_interval": list(self.kappa_interval),
            "both_refused": self.both_refused,
            "only_first": self.only_first,
            "only_second": self.only_second,
            "none_refused": self.none_refused,
            "disagreements": list(self.disagreements),
            "unjudged": dict(zip(("only_first", "only_second", "both"), self.unjudged, strict=True)),
        }


def measure_agreement(first: Sequence[Rollout], second: Sequence[Rollout], *, seed: int = 0) -> Agreement:
    """Compares `refused` of the same rollouts as two judges have filled it in.

    Args:
        first: Judged by the one (see `interp.judges.judged`).
        second: Judged by the other, in any order; ids pair them.
        seed: Of the bootstrap.

    Raises:
        CliffscopeError: If they are not the same rollouts.
    """
    pairs = _paired(first, second)
    both = [(a, b) for a, b in pairs if a.refused is not None and b.refused is not None]
    verdicts = np.array([(a.refused, b.refused) for a, b in both], dtype=np.bool_).reshape(-1, 2)
    cells = confusion(verdicts[:, 0], verdicts[:, 1])
    agreed, n = int(cells[0, 0] + cells[1, 1]), len(both)
    prompts = [a.prompt for a, _ in both]
    return Agreement(
        n=n,
        accuracy=agreed / n if n else math.nan,
        accuracy_interval=proportion_interval(agreed, n),
        kappa=float(cohen_kappa(cells)),
        kappa_interval=kappa_interval(verdicts[:, 0], verdicts[:, 1], clusters=prompts, seed=seed),
        both_refused=int(cells[1, 1]),
        only_first=int(cells[1, 0]),
        only_second=int(cells[0, 1]),
        none_refused=int(cells[0, 0]),
        disagreements=tuple(a.id for a, b in both if a.refused is not b.refused),
        unjudged=(
            sum(a.refused is None and b.refused is not None for a, b in pairs),
            sum(a.refused is not None and b.refused is None for a, b in pairs),
            sum(a.refused is None and b.refused is None for a, b in pairs),
        ),
    )


def _paired(first: Sequence[Rollout], second: Sequence[Rollout]) -> list[tuple[Rollout, Rollout]]:
    others = {rollout.id: rollout for rollout in second}
    missing = [rollout.id for rollout in first if rollout.id not in others]
    extra = sorted(others.keys() - {rollout.id for rollout in first})
    if missing or extra:
        raise CliffscopeError(
            f"agreement: both must have judged the same rollouts; {(missing + extra)[0]!r} is only in the "
            f"{'first' if missing else 'second'}."
        )
    pairs = [(rollout, others[rollout.id]) for rollout in first]
    for a, b in pairs:
        if (a.prompt, a.response) != (b.prompt, b.response):
            raise CliffscopeError(f"agreement: rollout {a.id!r} has another prompt or response in the second.")
    return pairs
