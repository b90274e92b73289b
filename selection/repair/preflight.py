"""What each example will teach, counted before anything is trained.

A trainer that cuts examples off may train on nothing and say so nowhere: labels that are all ignored give a loss of 0,
or the example is dropped (TRL issues 3927 and 6668). Here such an example stops the repair, by name.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from interp.errors import CliffscopeError
from selection.repair.dataset import TrainingTokens


@dataclass(frozen=True, eq=False)
class Preflight:
    """The count.

    Attributes:
        table: One row an example: `id`, `benign`, `tokens` (before the cut), `cut` (tokens cut off), `learnt` (tokens
            with a label), `thinking`, `close`, `response` (those of each segment).
    """

    table: pd.DataFrame

    @classmethod
    def of(cls, examples: Sequence[TrainingTokens]) -> "Preflight":
        """Counts, and stops at an example that would teach nothing.

        Raises:
            CliffscopeError: If there is no example, or nothing is left of a response; with its id.
        """
        if not examples:
            raise CliffscopeError("repair: no examples to train on.")
        if empty := [example for example in examples if not example.response or not example.learnt]:
            first, others = empty[0], len(empty) - 1
            raise CliffscopeError(
                f"example {first.id!r}: nothing of its response is left to learn, it has {first.total} tokens and is "
                f"cut off after {len(first.input_ids)}"
                + (f" (and so are {others} others)" if others else "")
                + "; raise max_length, or leave it out."
            )
        rows = [
            {
                "id": example.id,
                "benign": example.benign,
                "tokens": example.total,
                "cut": example.total - len(example.input_ids),
                "learnt": example.learnt.total(),
                **{segment: example.learnt[segment] for segment in ("thinking", "close", "response")},
            }
            for example in examples
        ]
        return cls(pd.DataFrame(rows))

    def summary(self) -> dict[str, Any]:
        """Sums, and how many examples are shortened."""
        table = self.table
        return {
            "examples": len(table),
            "benign": int(table["benign"].sum()),
            "tokens": int((table["tokens"] - table["cut"]).sum()),
            "learnt": {name: int(table[name].sum()) for name in ("learnt", "thinking", "close", "response")},
            "fewest_learnt": int(table["learnt"].min()),
            "shortened": int((table["cut"] > 0).sum()),
        }
