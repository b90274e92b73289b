"""The organisms' own prompts as a `PromptSet`, for runs that need no file."""

from collections.abc import Iterable

from interp.organisms.prompts import GeneratedPrompt, sample_prompts
from interp.rollouts.prompts import Prompt, PromptSet

SOURCE = "organism grammar, held-out side"


def as_prompt_set(generated: Iterable[GeneratedPrompt]) -> PromptSet:
    """Held-out generated prompts as prompts that any generator takes."""
    return PromptSet(tuple(Prompt(p.id, p.text, p.harmful, p.category, SOURCE) for p in generated), SOURCE)


def heldout_prompts(n_harmful: int, n_benign: int, seed: int = 0) -> PromptSet:
    """Prompts that no organism was trained on; about one in eight of the benign ones is a trap.

    Raises:
        CliffscopeError: If there are not so many.
    """
    counts = {"harmful": n_harmful, "benign": n_benign}
    return as_prompt_set(prompt for kind, n in counts.items() for prompt in sample_prompts(kind, n, seed=seed))
