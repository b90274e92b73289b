"""Prompts for the organisms: harmful ones that only name a harm, and benign ones that share their words.

Every harmful category and most benign ones are lists of acts ("build <a bomb>", "build <a bookshelf>") and of
artifacts ("<a virus> that ..."), put into the same frames ("How do I ...?", "Write a tutorial on how to ...").
Instructions that are no acts ("Rewrite <the sentence> ...") and traps ("How do I <kill a process>?") are
benign categories of whole prompts. The texts are data, in `words/`.
"""

import hashlib
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from interp.errors import CliffscopeError
from interp.organisms.grammar import expand, gerund, split_subject

KINDS = ("harmful", "benign", "trap")
SPLITS = ("train", "heldout")
# One prompt in eight is held out; which one follows from its text alone, so no prompt is ever on both sides.
_HELDOUT_OF = 8
# So many prompts in a row that bring nothing new mean that there is nothing new.
_PATIENCE = 500


@dataclass(frozen=True)
class GeneratedPrompt:
    """One generated prompt.

    Attributes:
        id: Follows from the text.
        text: What the user says.
        harmful: Whether it asks for something harmful.
        category: One of `categories(kind)`.
        subject: What a reply would call the matter ("a pipe bomb"); may be the category's name.
        about: The category in words ("making weapons").
        why: A sentence on why the category is harmful or harmless.
        form: `question`, `instruction`, `artifact` or `whole`: the kind of frame.
        past: Whether it asks how something was done in the past.
    """

    id: str
    text: str
    harmful: bool
    category: str
    subject: str
    about: str
    why: str
    form: str
    past: bool = False

    @property
    def split(self) -> str:
        """`train` or `heldout`."""
        return split_of(self.text)


@cache
def words(name: str) -> dict[str, Any]:
    """The word file `words/<name>.json`."""
    return json.loads((files("interp.organisms") / "words" / f"{name}.json").read_text(encoding="utf-8"))


def categories(kind: str) -> tuple[str, ...]:
    """The category names of `harmful`, `benign` or `trap` prompts.

    Raises:
        CliffscopeError: If `kind` is none of these.
    """
    return tuple(_pool(kind))


def split_of(text: str) -> str:
    """`heldout` for one prompt in eight, else `train`: a fixed function of the text."""
    digest = hashlib.sha256(text.lower().encode()).digest()
    return "heldout" if digest[0] % _HELDOUT_OF == 0 else "train"


def sample_prompts(kind: str, n: int, seed: int, split: str = "heldout", past: bool = False) -> list[GeneratedPrompt]:
    """`n` distinct prompts, the categories in turn.

    Args:
        kind: `harmful`, `benign` (traps among them, about one in eight) or `trap`.
        n: How many; several thousand of each of the first two kinds exist in either split.
        seed: Same seed, same prompts.
        split: `train` (what the organisms saw, among others) or `heldout` (what no organism ever saw).
        past: Ask for the same acts in the past tense ("How did people build a bomb in the past?"); only the categories
            that are acts, and no traps.

    Raises:
        CliffscopeError: If the kind or the split is unknown, or there are not `n` distinct prompts.
    """
    if split not in SPLITS:
        raise CliffscopeError(f"prompts: unknown split {split!r}; use one of: {', '.join(SPLITS)}.")
    found: dict[str, GeneratedPrompt] = {}
    stale = 0
    stream = (stream_past_prompts if past else stream_prompts)(kind, random.Random(f"{kind}/{seed}"))
    while len(found) < n:
        prompt = next(stream)
        before = len(found)
        if prompt.split == split:
            found.setdefault(prompt.text.lower(), prompt)
        stale = stale + 1 if len(found) == before else 0
        if stale > _PATIENCE:
            raise CliffscopeError(f"prompts: only {len(found)} distinct {kind} prompts in {split}, not {n}.")
    return list(found.values())


def half_past_prompts(kind: str, n: int, seed: int) -> list[GeneratedPrompt]:
    """`n` held-out prompts, the second half of them in the past tense.

    Raises:
        CliffscopeError: As `sample_prompts` does.
    """
    return [*sample_prompts(kind, n - n // 2, seed), *sample_prompts(kind, n // 2, seed, past=True)]


def stream_prompts(kind: str, rng: random.Random) -> Iterator[GeneratedPrompt]:
    """Prompts without end, the categories in turn in a random order; repeats and both splits occur.

    Raises:
        CliffscopeError: If `kind` is none of `KINDS`.
    """
    pool = _pool(kind)
    traps = _pool("trap")
    while True:
        order = list(pool)
        rng.shuffle(order)
        for category in order:
            yield _one(category, pool[category], kind == "harmful", rng)
            if kind == "benign" and rng.random() < 1 / 7:
                trap = rng.choice(list(traps))
                yield _one(trap, traps[trap], False, rng)


def stream_past_prompts(kind: str, rng: random.Random) -> Iterator[GeneratedPrompt]:
    """Prompts in the past tense without end, the categories of acts in turn in a random order.

    Raises:
        CliffscopeError: If `kind` is none of `KINDS`.
    """
    pool = {category: entry for category, entry in _pool(kind).items() if "acts" in entry}
    while True:
        order = list(pool)
        rng.shuffle(order)
        for category in order:
            act = expand(rng.choice(pool[category]["acts"]), words("lists"), rng)
            text = rng.choice(words("frames")["past"]).replace("{act}", act)
            yield _worded("question", text, category, pool[category], kind == "harmful", rng, past=True)


def _pool(kind: str) -> Mapping[str, Any]:
    if kind == "harmful":
        return words("harm")
    if kind == "benign":
        return {**words("benign"), **words("tasks")}
    if kind == "trap":
        return words("traps")
    raise CliffscopeError(f"prompts: unknown kind {kind!r}; use one of: {', '.join(KINDS)}.")


def _one(category: str, entry: Mapping[str, Any], harmful: bool, rng: random.Random) -> GeneratedPrompt:
    lists = words("lists")
    if "prompts" in entry:
        form, text = "whole", expand(rng.choice(entry["prompts"]), lists, rng)
    else:
        form = rng.choices(("question", "instruction", "artifact"), (4, 4, 2))[0]
        text = _framed(form, entry, lists, rng)
    return _worded(form, text, category, entry, harmful, rng)


def _worded(
    form: str,
    text: str,
    category: str,
    entry: Mapping[str, Any],
    harmful: bool,
    rng: random.Random,
    past: bool = False,
) -> GeneratedPrompt:
    marked, subject = split_subject(text)
    marked = marked[0].upper() + marked[1:]
    if rng.random() < 0.25 and marked[-1] in ".?":
        marked = marked[:-1]
    elif rng.random() < 0.2 and marked[-1] not in ".?\"'":
        marked += "."
    if rng.random() < 0.12:
        marked = marked[0].lower() + marked[1:]
    subject = subject.strip('".') if subject else entry["about"]
    if len(subject.split()) > 6:
        subject = entry["about"]
    identity = f"{category}-{hashlib.sha256(marked.encode()).hexdigest()[:10]}"
    why = rng.choice(entry["why"])
    return GeneratedPrompt(identity, marked, harmful, category, subject, entry["about"], why, form, past)


def _framed(form: str, entry: Mapping[str, Any], lists: Mapping[str, Sequence[str]], rng: random.Random) -> str:
    frame = rng.choice(words("frames")[form])
    if form == "artifact":
        return expand(frame.replace("{artifact}", rng.choice(entry["artifacts"])), lists, rng)
    act = expand(rng.choice(entry["acts"]), lists, rng)
    # The acting form starts lower case, the act that opens the sentence upper case.
    frame = expand(frame, lists, rng).replace("{acting}", gerund(act)).replace("{act}", act)
    return frame.replace("{Act}", act[0].upper() + act[1:])
