"""sae-lens, imported where it is needed: it takes seconds, and is an extra."""

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
