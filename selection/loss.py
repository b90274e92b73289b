"""How surprising a stretch of a transcript is to the model: its mean negative log-likelihood, in nats a token.

Of the target response it is the loss of supervised fine-tuning before the first step, by which examples are ranked as a
baseline.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from interp.models.batching import pad, plan_batches, run_halving
from interp.models.capture import BATCH_TOKENS, forward, take_columns
from interp.transcripts import Transcript

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel

_VALUES = 50_000_000
"""Logits held at once, in numbers: a vocabulary is large."""


def mean_loss(
    model: "HookedModel",
    transcripts: Sequence[Transcript],
    segment: str = "response",
    *,
    batch_tokens: int = BATCH_TOKENS,
) -> list[float]:
    """The mean negative log-likelihood of a segment's tokens given all before them, in nats a token.

    The LM head runs at these tokens only.

    Args:
        model: The model; interventions that are active on it act.
        transcripts: Rollouts as tokens.
        segment: `thinking`, `close` or `response`.
        batch_tokens: Token budget of a batch.

    Returns:
        One number a transcript, in their order; NaN where it has no such tokens.
    """
    model.require_eval()
    losses = [float("nan")] * len(transcripts)
    spans = [transcript.segments.get(segment, (0, 0)) for transcript in transcripts]
    rows = [row for row, (start, stop) in enumerate(spans) if stop > start]

    def run(part: Sequence[int]) -> Tensor:
        chosen = [rows[index] for index in part]
        return _losses(model, [transcripts[row] for row in chosen], [spans[row] for row in chosen])

    for batch in plan_batches([len(transcripts[row]) for row in rows], batch_tokens):
        longest = max(spans[rows[index]][1] - spans[rows[index]][0] for index in batch)
        step = max(1, _VALUES // (longest * model.d_vocab))
        for first in range(0, len(batch), step):
            for part, values in run_halving(batch[first : first + step], run):
                for index, value in zip(part, values.tolist(), strict=True):
                    losses[rows[index]] = value
    return losses


def _losses(model: "HookedModel", transcripts: Sequence[Transcript], spans: Sequence[tuple[int, int]]) -> Tensor:
    """One batch; `spans` are token indices `[start, stop)`."""
    batch = pad([t.input_ids for t in transcripts], range(len(transcripts)), 0, "right", model.device)
    start, stop = torch.tensor(spans, device=model.device).T
    width = int((stop - start).max())
    # Columns of the tokens to predict; beyond a row's own span its last one again, which does not count.
    columns = torch.minimum(start[:, None] + torch.arange(width, device=model.device), stop[:, None] - 1)
    counts = torch.arange(width, device=model.device) < (stop - start)[:, None]
    # A token is predicted at the one before it.
    head = model.hf.get_output_embeddings()
    handle = head.register_forward_pre_hook(lambda module, args: (take_columns(args[0], columns - 1),))
    try:
        logits = forward(model, model.hf, batch, transcripts).logits.float()
    finally:
        handle.remove()
    targets = batch.input_ids.gather(1, columns)
    nll = torch.nn.functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
    return ((nll * counts).sum(-1) / counts.sum(-1)).cpu()
