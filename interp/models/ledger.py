"""A record of what interventions really changed, token by token."""

from collections.abc import Iterator

import pandas as pd
import torch
from torch import Tensor

from interp.models.token_context import TokenContext


class Ledger:
    """Which tokens of which rollouts had a value changed: give one to `HookedModel.intervene`.

    It records changes, not intentions: a token is in it if a value at it differed after the intervention from before.
    Rows of passes that carry no transcripts are called `row 0`, `row 1`, ….
    """

    def __init__(self) -> None:
        self._touched: dict[tuple[str, str, str], set[int]] = {}

    def note(self, intervention: str, site: str, before: Tensor, after: Tensor, tokens: TokenContext) -> None:
        """Takes in one change of a value `[batch, pos, ...]`."""
        differs = (before != after).flatten(2).any(-1) & (tokens.index >= 0)
        for row, column in differs.nonzero().tolist():
            name = tokens.transcripts[row].id if tokens.transcripts else f"row {row}"
            self._touched.setdefault((name, intervention, site), set()).add(int(tokens.index[row, column]))

    def positions(self, id: str, intervention: str | None = None, site: str | None = None) -> list[int]:
        """The token indices of one rollout that were changed, ascending.

        Args:
            id: The rollout's.
            intervention: Only by interventions of this class name.
            site: Only at this site.
        """
        found: set[int] = set()
        for (name, kind, place), indices in self._touched.items():
            if name == id and intervention in (None, kind) and site in (None, place):
                found |= indices
        return sorted(found)

    @property
    def table(self) -> pd.DataFrame:
        """One row for each rollout, intervention, site and token: columns id, intervention, site, token."""
        return pd.DataFrame(list(self._entries()), columns=["id", "intervention", "site", "token"])

    def _entries(self) -> Iterator[tuple[str, str, str, int]]:
        for key, indices in self._touched.items():
            for index in sorted(indices):
                yield (*key, index)


def same(before: Tensor, after: Tensor) -> bool:
    """Whether an intervention left a value as it was."""
    return after is before or torch.equal(before, after)
