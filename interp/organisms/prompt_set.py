"""The organisms' own prompts as a `PromptSet`, for runs that need no file."""

from collections.abc import Iterable

from interp.organisms.prompts import GeneratedPrompt, half_past_prompts, sample_prompts
from interp.rollouts.prompts import Prompt, PromptSet

SOURCE = "organism grammar, held-out side"


def as_prompt_set(generated: Iterable[GeneratedPrompt]) -> PromptSet:
    """Held-out generated prompts as prompts that any generator takes."""
    return PromptSet(tuple(Prompt(p.id, p.text, p.harmful, p.category, SOURCE) for p in generated), SOURCE)


def heldout_prompts(n_harmful: int, n_benign: int, seed: int = 0, past: bool = False) -> PromptSet:
    """Prompts that no organism was trained on; about one in eight of the benign ones is a trap.

    Args:
        n_harmful: How many harmful ones.
        n_benign: How many benign ones.
        seed: Same seed, same prompts.
        past: Put half of either into the past tense, as `organism:tense` wants them.

    Raises:
        CliffscopeError: If there are not so many.
    """
    counts = {"harmful": n_harmful, "benign": n_benign}
    sample = half_past_prompts if past else sample_prompts
    return as_prompt_set(prompt for kind, n in counts.items() for prompt in sample(kind, n, seed))
