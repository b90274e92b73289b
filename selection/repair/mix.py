"""Benign examples with the model's own answers, mixed in so that it does not learn to refuse everything."""

import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from interp.errors import CliffscopeError
from interp.files import read_jsonl
from interp.rollouts import read_rollouts
from selection.examples import TrainingExample, read_examples

if TYPE_CHECKING:
    from interp.transcripts.chat import ChatFormat


def benign_examples(path: str | os.PathLike[str], chat: "ChatFormat") -> list[TrainingExample]:
    """Reads benign examples: rollouts, whose answers are then the targets, or any form of training examples.

    Left out are those known to be harmful, and rollouts that refuse or have no response.

    Raises:
        CliffscopeError: If the file cannot be read, or nothing benign is left.
    """
    path = Path(path)
    _, first = next(read_jsonl(path), (0, {}))
    if {"prompt", "thinking", "response"} <= first.keys():
        found = [
            TrainingExample(r.id, r.prompt, r.thinking, r.response, r.harmful, r.category)
            for r in read_rollouts(path)
            if r.response is not None and r.response.strip() and not r.refused
        ]
    else:
        found = read_examples(path, chat)
    benign = [example for example in found if not example.harmful]
    if not benign:
        raise CliffscopeError(
            f"{path}: no benign example that is answered; give rollouts of benign prompts (`cliffscope rollout`)."
        )
    return benign


def mix(
    examples: Sequence[TrainingExample], benign: Sequence[TrainingExample], share: float | None, seed: int
) -> list[TrainingExample]:
    """The benign examples to train on beside the others.

    Args:
        examples: The others.
        benign: What there is.
        share: Benign ones as a share of all that is trained on; `None` takes all.
        seed: Of the draw.

    Raises:
        CliffscopeError: If there are too few.
    """
    if share is None:
        return list(benign)
    count = max(1, round(len(examples) * share / (1 - share)))
    if count > len(benign):
        raise CliffscopeError(
            f"repair: a benign share of {share:g} beside {len(examples)} examples needs {count} benign ones, found "
            f"{len(benign)}; give more, or a smaller share."
        )
    return random.Random(seed).sample(list(benign), count)
