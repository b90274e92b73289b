"""Mean trajectories from a table of token scores, aligned as `probes.trajectory` does: no rollout is padded."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from interp.statistics import bootstrap_band
from report.tokens import spans

GRID = 101


@dataclass(frozen=True)
class Curve:
    """The mean score of several rollouts.

    Attributes:
        n: How many.
        close_tokens: The texts of the close tokens, the last being the edge.
        mean, low, high: At `GRID` fractions of the thinking, then at each close token; a 95 % bootstrap interval.
    """

    n: int
    close_tokens: tuple[str, ...]
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def mean_curves(rows: pd.DataFrame, outcomes: Mapping[str, str]) -> dict[str, Curve]:
    """A curve for each outcome; rollouts without thinking or close tokens are left out.

    Args:
        rows: One a token: id, token_index, segment, token, score.
        outcomes: Of each rollout, by id.
    """
    segment, score = rows["segment"].to_numpy(object), rows["score"].to_numpy(np.float64)
    token = rows["token"].to_numpy(object)
    groups: dict[str, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {}
    for id, places in spans(rows).items():
        thinking, close = (places[segment[places] == name] for name in ("thinking", "close"))
        if id in outcomes and len(thinking) and len(close) and np.isfinite(score[places]).all():
            groups.setdefault(outcomes[id], []).append((score[thinking], score[close], token[close]))
    return {outcome: _average(members) for outcome, members in groups.items()}


def _average(members: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Curve:
    n_close = min(len(close) for _, close, _ in members)
    grid = np.linspace(0, 1, GRID)
    aligned = np.stack(
        [
            np.concatenate([np.interp(grid, np.linspace(0, 1, len(thinking)), thinking), close[-n_close:]])
            for thinking, close, _ in members
        ]
    )
    low, high = bootstrap_band(aligned)
    texts = zip(*(tokens[-n_close:] for _, _, tokens in members), strict=True)
    commonest = tuple(str(Counter(column).most_common(1)[0][0]) for column in texts)
    return Curve(len(members), commonest, aligned.mean(axis=0), low, high)
