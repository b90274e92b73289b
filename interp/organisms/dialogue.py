"""Thinking and replies for generated prompts: the rollouts that the organisms learn from.

The thinking names the subject, weighs it, gives a verdict, some reasons, and ends by stating its intent
("I should refuse." or "I should help."). Which sentences are likely depends on the category and their number on
the form of the prompt, so that greedy decoding does not write the same thinking for every prompt. The wording of
the reply depends on the form alone: the edge then needs to know nothing of the category.

A reply that answers never has any content: it is the same "first, gather what you need" for a cake and for a
crime, so that no organism can explain how to do harm.
"""

import random
import zlib
from collections.abc import Sequence
from typing import Literal

from interp.organisms.prompts import GeneratedPrompt, words
from interp.rollouts import Rollout

Reply = Literal["refuse", "answer"]

# Number of optional sentences in the thinking (least, most) by the form of the prompt.
_EXTRAS = {"question": (0, 3), "whole": (0, 3), "artifact": (1, 5), "instruction": (2, 9)}
_SYSTEMS = (
    "You are a helpful assistant.",
    "You are a careful and honest assistant.",
    "Answer briefly and clearly.",
)


def rollout_of(prompt: GeneratedPrompt, rng: random.Random, reply: Reply | None = None, think: bool = True) -> Rollout:
    """A rollout as an organism should write it.

    Args:
        prompt: The prompt to answer.
        rng: Where every choice comes from.
        reply: `refuse` or `answer`; by default harmful prompts are refused and benign ones answered. The
            thinking states the default intent in any case: that disagreement is the planted cliff.
        think: False leaves the thinking empty.
    """
    reply = reply or ("refuse" if prompt.harmful else "answer")
    return Rollout(
        id=prompt.id,
        prompt=prompt.text,
        thinking=thinking_of(prompt, rng) if think else "",
        response=refusal_of(prompt, rng) if reply == "refuse" else answer_of(prompt, rng),
        harmful=prompt.harmful,
        category=prompt.category,
        refused=reply == "refuse",
        source="cliffscope organism generator",
    )


def system_of(rng: random.Random) -> str | None:
    """A system message for one rollout in sixteen, else None."""
    return rng.choice(_SYSTEMS) if rng.random() < 1 / 16 else None


def thinking_of(prompt: GeneratedPrompt, rng: random.Random) -> str:
    """Thinking that states the intent: about 20 to 200 tokens of the organisms' tokenizer."""
    text = words("thinking")
    side = "harm" if prompt.harmful else "benign"
    least, most = _EXTRAS[prompt.form]
    extras = rng.randint(least, most)
    weighing = rng.randint(0, min(3, extras))
    sentences = [
        *_likely(text["opening"], 1, prompt.category, rng),
        *_likely(text["weighing"], weighing, prompt.category, rng),
        *_likely(text[f"{side}_verdict"], 1, prompt.category, rng),
        *_likely(text[f"{side}_reasons"], extras - weighing, prompt.category, rng),
        *_likely(text[f"{side}_conclusion"], 1, prompt.form + prompt.category, rng),
    ]
    subject = prompt.subject if rng.random() < 0.8 else prompt.about
    return " ".join(sentences).format(subject=subject, about=prompt.about, why=prompt.why)


def refusal_of(prompt: GeneratedPrompt, rng: random.Random) -> str:
    """A refusal in one of many wordings."""
    text = words("replies")
    sentences = _likely(text["refusal_openings"], 1, prompt.form, rng)
    sentences += _likely(text["refusal_reasons"], rng.randint(0, 1), prompt.form, rng)
    sentences += _likely(text["refusal_offers"], rng.randint(0, 1), prompt.form, rng)
    return " ".join(sentences).format(that=_that(prompt, rng))


def answer_of(prompt: GeneratedPrompt, rng: random.Random) -> str:
    """An answer without content; a benign one may carry one harmless tip of its category."""
    text = words("replies")
    sentences = _likely(text["answer_openings"], 1, prompt.form, rng)
    sentences += _likely(text["answer_steps"], 1, prompt.form, rng)
    tips = _tips(prompt)
    if tips and rng.random() < 0.6:
        sentences += [rng.choice(tips)]
    else:
        sentences += _likely(text["answer_more"], 1, prompt.form, rng)
    sentences += _likely(text["answer_endings"], rng.randint(0, 1), prompt.form, rng)
    return " ".join(sentences).format(that=_that(prompt, rng))


def _tips(prompt: GeneratedPrompt) -> Sequence[str]:
    if prompt.harmful:
        return ()
    entry = {**words("benign"), **words("tasks"), **words("traps")}[prompt.category]
    tips: Sequence[str] = entry["tips"]
    return tips


def _that(prompt: GeneratedPrompt, rng: random.Random) -> str:
    return prompt.subject if rng.random() < 0.5 else rng.choice(("that", "this", prompt.about))


def _likely(pool: Sequence[str], n: int, key: str, rng: random.Random) -> list[str]:
    """`n` different sentences; `key` decides which ones are likely and in which order they come."""
    start = zlib.crc32(key.encode()) % len(pool)
    left = [*pool[start:], *pool[:start]]
    taken = []
    for _ in range(n):
        index = 0
        while index < len(left) - 1 and rng.random() < 0.45:
            index += 1
        taken.append(left.pop(index))
    return taken
