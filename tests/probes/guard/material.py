"""Prompts for guards: those of the organisms, and made-up scores with a known answer."""

from functools import cache

from interp.organisms.prompt_set import heldout_prompts
from interp.rollouts.prompts import Prompt


@cache
def prompts() -> tuple[Prompt, ...]:
    """150 harmful and 100 benign prompts that no organism was trained on; they only name a harm."""
    return tuple(heldout_prompts(150, 100, 0))
