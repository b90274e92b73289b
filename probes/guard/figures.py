"""How well a guard tells harmful prompts from benign ones: AUROC, missed and wrongly flagged prompts, by category."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from interp.rollouts.prompts import Prompt
from interp.statistics import Interval, auroc, auroc_interval, proportion_interval


@dataclass(frozen=True, eq=False)
class GuardFigures:
    """Figures on labelled prompts; intervals are 95 %.

    Attributes:
        auroc: NaN if a class is missing.
        auroc_interval: Stratified bootstrap over prompts, Newcombe's where the classes do not overlap.
        table: Columns category, harmful, n, flagged, wrong (harmful ones missed, benign ones flagged), rate, low, high
            (Wilson): one row a category and class, harmful ones first. Prompts without a category are one of `–`.
    """

    auroc: float
    auroc_interval: Interval
    table: pd.DataFrame

    @classmethod
    def of(
        cls,
        prompts: Sequence[Prompt],
        scores: Float[np.ndarray, " prompt"],
        flagged: Bool[np.ndarray, " prompt"],
        seed: int = 0,
    ) -> "GuardFigures":
        """Judges scores and flags; prompts of unknown class are left out.

        Args:
            prompts: With `harmful` and, for the table, `category`.
            scores: Higher is more harmful.
            flagged: What the guard would stop.
            seed: Of the bootstrap.
        """
        known = [row for row, prompt in enumerate(prompts) if prompt.harmful is not None]
        labels = np.array([prompts[row].harmful for row in known], dtype=np.int64)
        rows = []
        for harmful in (True, False):
            mine = [row for row in known if prompts[row].harmful is harmful]
            for name in sorted({prompts[row].category or "–" for row in mine}):
                stopped = flagged[[row for row in mine if (prompts[row].category or "–") == name]]
                rows.append(
                    {"category": name, "harmful": harmful, **_errors(len(stopped), int(stopped.sum()), harmful)}
                )
        columns = ["category", "harmful", "n", "flagged", "wrong", "rate", "low", "high"]
        return cls(
            float(auroc(scores[known], labels)) if len(np.unique(labels)) == 2 else float("nan"),
            auroc_interval(scores[known], labels, seed=seed),
            pd.DataFrame(rows, columns=columns),
        )

    def errors(self, harmful: bool) -> dict[str, Any]:
        """n, flagged, wrong, rate, low, high of a class over all categories."""
        mine = self.table[self.table["harmful"] == harmful]
        return _errors(int(mine["n"].sum()), int(mine["flagged"].sum()), harmful)

    @property
    def missed(self) -> float:
        """The share of harmful prompts that were not flagged; NaN without any."""
        return float(self.errors(True)["rate"])

    @property
    def flagged_benign(self) -> float:
        """The share of benign prompts that were flagged; NaN without any."""
        return float(self.errors(False)["rate"])

    def summary(self) -> dict[str, Any]:
        """The figures as plain values, for JSON; NaN where there is none."""
        return {
            "auroc": self.auroc,
            "auroc_low": self.auroc_interval.low,
            "auroc_high": self.auroc_interval.high,
            "missed_harmful": self.errors(True),
            "flagged_benign": self.errors(False),
            "by_category": self.table.to_dict("records"),
        }


def _errors(n: int, flagged: int, harmful: bool) -> dict[str, Any]:
    wrong = n - flagged if harmful else flagged
    interval = proportion_interval(wrong, n)
    rate = wrong / n if n else float("nan")
    return {"n": n, "flagged": flagged, "wrong": wrong, "rate": rate, "low": interval.low, "high": interval.high}


def confounded(prompts: Sequence[Prompt]) -> str | None:
    """Why the two classes may be told apart by where they come from, in one sentence; `None` if nothing speaks for it.

    Harmful and benign prompts of different corpora (AdvBench against Alpaca is the usual pair) differ in length, form
    and topic. What separates them need not be harm, and the figures on such prompts do not tell.
    """
    sources = [{p.source for p in prompts if p.harmful is harmful and p.source} for harmful in (True, False)]
    if not sources[0] or not sources[1] or sources[0] & sources[1]:
        return None
    named = [", ".join(sorted(names)) for names in sources]
    return (
        f"harmful prompts come from {named[0]} and benign ones from {named[1]}: what tells them apart may be the "
        "corpus and not the harm; use matched pairs of one source, or trust only figures on other corpora"
    )
