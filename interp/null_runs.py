"""What a null says of a finding: the same figure from runs in which there was nothing to find, and what follows.

    p̂ = (1 + number of null runs whose figure is at least as large) / (runs + 1)

(arXiv 2512.18792.) A finding that its null shows as well is not one, however small its other p-values are.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from interp.errors import CliffscopeError

MAX_P = 0.05
"""A null that reaches the finding more often than this shows as much."""

NULLS = {
    "shuffled": "shuffled labels",
    "random-weights": "random weights",
    "random-direction": "random directions",
    "benign": "benign rollouts in place of complied ones",
}
"""The nulls there are, and what sentences call them."""


@dataclass(frozen=True)
class NullRuns:
    """One figure of an analysis beside the same figure of its null.

    Attributes:
        null: One of `NULLS`.
        statistic: What the figure is, in words; larger is more of a finding.
        observed: The figure of the analysis itself; NaN where it has none.
        values: The figure in each run of the null.
        seed: Of the first run; each later run has the next.

    Raises:
        CliffscopeError: If there is no such null, no run, or a run has no figure.
    """

    null: str
    statistic: str
    observed: float
    values: tuple[float, ...]
    seed: int = 0

    def __post_init__(self) -> None:
        if self.null not in NULLS:
            raise CliffscopeError(f"null {self.null!r}: expected one of {', '.join(NULLS)}.")
        if not self.values:
            raise CliffscopeError(f"null {self.null}: expected at least one run.")
        if any(math.isnan(value) for value in self.values):
            raise CliffscopeError(f"null {self.null}: a run has no {self.statistic}.")

    @classmethod
    def of_summary(cls, summary: Mapping[str, Any]) -> "NullRuns":
        """What `summary` put down."""
        observed = math.nan if summary["observed"] is None else float(summary["observed"])
        values = tuple(float(value) for value in summary["values"])
        return cls(summary["null"], summary["statistic"], observed, values, int(summary["seed"]))

    @property
    def p(self) -> float:
        """p̂; NaN where nothing was observed."""
        return math.nan if math.isnan(self.observed) else (1 + self.reached) / (1 + len(self.values))

    @property
    def smallest_p(self) -> float:
        """The smallest p̂ that so many runs allow."""
        return 1 / (1 + len(self.values))

    @property
    def reached(self) -> int:
        """How many runs show as much."""
        return sum(value >= self.observed for value in self.values)

    @property
    def shown(self) -> bool:
        """Whether the null shows as much as the analysis."""
        return self.reached > 0 and self.p > MAX_P

    @property
    def stands(self) -> bool:
        """Whether the finding stands against the null; `False` too where there are too few runs to say so."""
        return self.p <= MAX_P

    @property
    def sentence(self) -> str:
        """What the null says, in words."""
        if math.isnan(self.observed):
            return f"No {self.statistic} was found, so there is nothing to set against {NULLS[self.null]}."
        if self.shown:
            return f"{self.objection[0].upper()}{self.objection[1:]}. By this null it is no finding."
        told = f"Against {NULLS[self.null]}: {self._figures}."
        if self.stands:
            return told
        needed = math.ceil(1 / MAX_P) - 1
        return f"{told} So few runs allow no smaller p; at least {needed} are needed to tell."

    @property
    def objection(self) -> str:
        """That the null shows as much, in words."""
        return f"{NULLS[self.null]} show as much: {self._figures}"

    @property
    def _figures(self) -> str:
        runs, mean = f"{len(self.values)} run{'s' * (len(self.values) > 1)}", sum(self.values) / len(self.values)
        return (
            f"{self.statistic} {self.observed:.3g} here, {mean:.3g} in the mean of {runs} and {max(self.values):.3g} "
            f"at most there (p = {self.p:.2g})"
        )

    def summary(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "null": self.null,
            "statistic": self.statistic,
            "observed": None if math.isnan(self.observed) else self.observed,
            "values": list(self.values),
            "p": None if math.isnan(self.p) else self.p,
            "smallest_p": self.smallest_p,
            "shown": self.shown,
            "stands": self.stands,
            "seed": self.seed,
            "sentence": self.sentence,
        }


def sentences(nulls: Sequence[NullRuns]) -> str:
    """What several say, one after the other."""
    return " ".join(null.sentence for null in nulls)
