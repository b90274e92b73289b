"""A mean with its interval, or the reason why there is none."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from interp.statistics import bootstrap_counts
from interp.studentized import studentized_bounds


@dataclass(frozen=True)
class Estimate:
    """A figure over rollouts with its bootstrap 95 % interval.

    Attributes:
        value: The figure; `None` if it cannot be had.
        low, high: Of the interval; `None` for fewer than two rollouts.
        n: Rollouts.
        reason: Why there is no figure.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    reason: str | None = None

    @classmethod
    def undefined(cls, reason: str) -> "Estimate":
        """The figure that cannot be had."""
        return cls(None, None, None, 0, reason)

    @classmethod
    def of(
        cls,
        sums: Float[np.ndarray, " rollout"],
        sizes: Float[np.ndarray, " rollout"],
        *,
        exponential: bool = False,
        resamples: int = 2000,
        seed: int = 0,
    ) -> "Estimate":
        """Σ sums / Σ sizes, or its exponential, rollouts being drawn whole; their order does not matter.

        Raises:
            ValueError: If there are no rollouts.
        """
        if not len(sums):
            raise ValueError("an estimate needs a rollout")
        order = np.lexsort((sizes, sums))
        sums, sizes = sums[order], sizes[order]
        transform = np.exp if exponential else np.asarray
        value = float(transform(sums.sum() / sizes.sum()))
        if len(sums) < 2:
            return cls(value, None, None, len(sums))
        counts = bootstrap_counts(len(sums), resamples, seed)
        low, high = (float(transform(bound[0])) for bound in studentized_bounds([(sums[:, None], sizes, counts)]))
        # What is nowhere negative, such as a divergence, has no negative mean.
        return cls(value, max(0.0, low) if (sums >= 0).all() else low, high, len(sums))

    def payload(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {"value": self.value, "low": self.low, "high": self.high, "n": self.n, "reason": self.reason}

    @property
    def bounds(self) -> tuple[float, float]:
        """`low` and `high`; NaN where there are none."""
        return (math.nan if self.low is None else self.low, math.nan if self.high is None else self.high)
