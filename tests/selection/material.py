"""What the tests of selection work on: pools of the organism's own rollouts, and scores by hand."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from interp.rollouts import Rollout
from selection.scoring import Score
from tests.circuits.material import organism_rollouts


def write_pool(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def row_of(rollout: Rollout, own: bool = True, **more: Any) -> dict[str, Any]:
    """A rollout as a line of a pool, with or without what the model wrote."""
    row = {"id": rollout.id, "prompt": rollout.prompt, "harmful": rollout.harmful, "category": rollout.category}
    return row | ({"thinking": rollout.thinking, "response": rollout.response} if own else {}) | more


def organism_pool(path: Path, n: int | None = None, **more: Any) -> Path:
    """Harmful and benign prompts in turns, with the rollouts of `organism:cliff`."""
    rollouts = organism_rollouts("cliff")
    mixed = [rollout for pair in zip(rollouts[:32], rollouts[64:96], strict=True) for rollout in pair]
    return write_pool(path, [row_of(rollout, **more) for rollout in mixed[:n]])


def score(id: str, **changed: Any) -> Score:
    """A complied rollout with plain values."""
    made = Score(
        id=id,
        harmful=True,
        category=None,
        outcome="complied",
        refused=False,
        judged=None,
        answered=True,
        plateau=0.9,
        edge=0.4,
        cliff=0.5,
        fall=2.0,
        n_tokens=100,
        loss=None,
        own=True,
        given=False,
        unscorable=None,
    )
    return replace(made, **changed)
