"""What takes long to make and is the same in every process of a run: made by the first, read by the others."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from interp.rollouts import Rollout, read_rollouts, write_rollouts

FOLDER = "CLIFFSCOPE_TESTS_SHARED"
"""The environment variable with the run's folder; unset where one process runs all tests."""


def shared(name: str, make: Callable[[], Iterable[Rollout]]) -> tuple[Rollout, ...]:
    """Rollouts of that name, which tell all that they depend on."""
    if FOLDER not in os.environ:
        return tuple(make())
    path = Path(os.environ[FOLDER]) / f"{name}.jsonl"
    if not path.exists():
        write_rollouts(path, list(make()))
    return tuple(read_rollouts(path))
