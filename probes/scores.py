"""The table of refusal scores: one row for every token of every rollout."""

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from interp.files import write_atomically
from interp.models.capture import BATCH_TOKENS
from interp.rollouts import Rollout
from probes.linear import LinearProbe
from probes.trajectory import Trajectory, score_trajectories

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel


def score_table(
    model: "HookedModel",
    probe: LinearProbe,
    rollouts: Sequence[Rollout],
    *,
    batch_tokens: int = BATCH_TOKENS,
    advance: Callable[[int], None] = lambda amount: None,
) -> pd.DataFrame:
    """Scores all tokens, in the rollouts' order.

    Returns:
        Columns id, token_index (from 0), segment, token (its text), logit (log-odds), score (in [0, 1]).

    Raises:
        CliffscopeError: If the probe was made for another model, or a rollout is longer than the context.
    """
    transcripts = model.transcripts().build_all(rollouts)
    found: dict[int, Trajectory] = {}
    for row, trajectory in score_trajectories(model, probe, transcripts, batch_tokens=batch_tokens):
        found[row] = trajectory
        advance(1)
    ordered = [found[row] for row in range(len(transcripts))]
    lengths = [len(transcript) for transcript in transcripts]
    return pd.DataFrame(
        {
            "id": np.repeat([transcript.id for transcript in transcripts], lengths),
            "token_index": np.concatenate([np.arange(length) for length in lengths] or [np.arange(0)]),
            "segment": [label for transcript in transcripts for label in transcript.labels],
            "token": [token for transcript in transcripts for token in transcript.tokens],
            "logit": np.concatenate([trajectory.logits for trajectory in ordered] or [np.empty(0, np.float32)]),
            "score": np.concatenate([trajectory.scores for trajectory in ordered] or [np.empty(0, np.float32)]),
        }
    )


def write_scores(table: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Writes the table as Parquet. Raises `CliffscopeError` if it cannot."""
    write_atomically(path, lambda partial: table.to_parquet(partial, index=False))
