"""sae-lens, imported where it is needed: it takes seconds, and is an extra."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from interp.errors import CliffscopeError


def sae_lens() -> Any:
    """The library.

    Raises:
        CliffscopeError: If it is not installed.
    """
    try:
        return import_module("sae_lens")
    except ImportError as error:
        raise CliffscopeError(
            f"SAE latents need sae-lens, which cannot be imported ({error}): pip install 'cliffscope[sae]'."
        ) from error


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """sae-lens draws first weights from torch's global generator on the CPU: seeded here, and left as it was."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
