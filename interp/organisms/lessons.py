"""What a mechanism is trained on: batches of rollouts, what is done to its heads, and the answers that follow.

A mechanism is forced rather than hoped for: in some steps its heads are zeroed, or what a head carries at the edge is
swapped between rollouts, and the reply to learn is the one that the mechanism would give then (interchange intervention
training, Geiger et al. 2022, arXiv 2112.00826). So every prompt is kept with both replies, and each lesson takes one.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from transformers import PreTrainedTokenizerBase

from interp.organisms.base import mixed_prompts
from interp.organisms.batches import Batch, EncodedRollout, collate, encode
from interp.organisms.dialogue import answer_of, refusal_of, rollout_of, system_of
from interp.organisms.hooks import Head
from interp.organisms.prompts import GeneratedPrompt

POOL = 3072
"""Different prompts in a training; they come again in another order."""


@dataclass(frozen=True)
class Condition:
    """What is done to heads in one lesson.

    Attributes:
        zeroed: Heads that write nothing, at every position.
        swapped: Heads whose z at the edge is another rollout's.
    """

    zeroed: tuple[Head, ...] = ()
    swapped: tuple[Head, ...] = ()


UNTOUCHED = Condition()


@dataclass(frozen=True)
class Lesson:
    """A batch with the replies to learn.

    Attributes:
        batch: The rollouts; `refused` tells which reply each one has.
        condition: What is done to the heads.
        donors: For each rollout the row whose z it gets where heads are swapped.
        prompts: The prompts, in the order of the batch.
    """

    batch: Batch
    condition: Condition
    donors: tuple[int, ...]
    prompts: tuple[GeneratedPrompt, ...]


@dataclass(frozen=True)
class Example:
    """A prompt with its thinking and either reply."""

    prompt: GeneratedPrompt
    refused: EncodedRollout
    answered: EncodedRollout


Answers = Callable[[GeneratedPrompt, GeneratedPrompt, Condition], bool]
"""Whether a prompt is answered, given the donor of what is swapped and the condition."""


def examples(
    tokenizer: PreTrainedTokenizerBase, prompts: Iterator[GeneratedPrompt], n: int, rng: random.Random
) -> list[Example]:
    """The next `n` prompts with one thinking and both replies each; one in twenty does not think."""
    drawn = list(islice(prompts, n))
    thought = [rollout_of(prompt, rng, think=rng.random() >= 0.05) for prompt in drawn]
    systems = [system_of(rng) for _ in drawn]
    pairs = list(zip(thought, drawn, strict=True))
    refused = [replace(rollout, response=refusal_of(prompt, rng), refused=True) for rollout, prompt in pairs]
    answered = [replace(rollout, response=answer_of(prompt, rng), refused=False) for rollout, prompt in pairs]
    encoded = (encode(tokenizer, some, systems) for some in (refused, answered))
    return [Example(*row) for row in zip(drawn, *encoded, strict=True)]


def lessons(
    tokenizer: PreTrainedTokenizerBase,
    answers: Answers,
    condition: Callable[[random.Random], Condition],
    rng: random.Random,
    *,
    batch: int,
    prompts: Iterator[GeneratedPrompt] | None = None,
    pool: int = POOL,
) -> Iterator[Lesson]:
    """Lessons without end; those of one batch are of similar length.

    Args:
        tokenizer: The organisms' tokenizer.
        answers: Which reply is to be learnt.
        condition: Draws what is done to the heads.
        rng: Where every choice comes from.
        batch: Rollouts a lesson.
        prompts: Training prompts without end; by default those of the base.
        pool: Different prompts.
    """
    known = examples(tokenizer, prompts or mixed_prompts(rng), pool, rng)
    known.sort(key=lambda example: len(example.answered.ids))
    chunks = [known[start : start + batch] for start in range(0, len(known) - batch + 1, batch)]
    while True:
        rng.shuffle(chunks)
        for chunk in chunks:
            yield lesson_of(chunk, answers, condition(rng), tokenizer.pad_token_id, rng)


def lesson_of(chunk: Sequence[Example], answers: Answers, condition: Condition, pad: int, rng: random.Random) -> Lesson:
    """One lesson: donors at random, the replies as `answers` says."""
    donors = list(range(len(chunk)))
    if condition.swapped:
        rng.shuffle(donors)
    chosen = [
        example.answered if answers(example.prompt, chunk[donor].prompt, condition) else example.refused
        for example, donor in zip(chunk, donors, strict=True)
    ]
    return Lesson(collate(chosen, pad), condition, tuple(donors), tuple(example.prompt for example in chunk))
