"""What processes that train together must agree on, and what none of them may leave changed."""

import contextlib
import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.distributed as dist


def world_size() -> int:
    """Processes that train together, as `torchrun` says."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this process is the one that writes files."""
    return os.environ.get("RANK", "0") == "0"


def from_first(decide: Callable[[], Any]) -> Any:
    """What the first process decides, in all of them."""
    if not dist.is_initialized():
        return decide()
    held = [decide() if is_first() else None]
    dist.broadcast_object_list(held, src=0)
    return held[0]


@contextlib.contextmanager
def own_random_numbers() -> Iterator[None]:
    """Trainers seed everybody's random numbers: after the block they are as they were."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002
