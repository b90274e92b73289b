"""A small text grammar: phrases with choices, word lists and one marked subject.

    [a|b|c]   one of the alternatives (an empty alternative is allowed: `[quickly|]`)
    {name}    one entry of the word list of that name
    <...>     marks the subject of the phrase: what a reply would call it

Alternatives may nest. Sampling takes every choice from one `random.Random`, so a seed gives the same text.
"""

import random
import re
from collections.abc import Mapping, Sequence

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{(\w+)\}")
_SUBJECT = re.compile(r"<([^<>]*)>")

# Verbs whose -ing form the spelling rules below get wrong.
_GERUNDS = {
    "3d": "3D", "3D": "3D", "be": "being", "die": "dying", "lie": "lying", "tie": "tying", "dye": "dyeing",
    "open": "opening", "listen": "listening", "visit": "visiting", "edit": "editing", "traffic": "trafficking",
    "commit": "committing", "rebel": "rebelling", "begin": "beginning", "forget": "forgetting",
    "program": "programming", "harm": "harming", "deal": "dealing", "tamper": "tampering", "smother": "smothering",
    "water": "watering", "recover": "recovering", "remember": "remembering", "gather": "gathering",
    "order": "ordering", "murder": "murdering", "enter": "entering", "cover": "covering", "slander": "slandering",
    "hinder": "hindering", "pressure": "pressuring", "launder": "laundering", "target": "targeting",
    "develop": "developing", "threaten": "threatening", "frighten": "frightening", "sharpen": "sharpening",
    "distribute": "distributing", "exploit": "exploiting", "profit": "profiting", "recruit": "recruiting",
    "extort": "extorting", "solicit": "soliciting", "kidnap": "kidnapping", "transport": "transporting",
    "abandon": "abandoning", "poison": "poisoning", "reason": "reasoning", "season": "seasoning",
    "train": "training", "obtain": "obtaining", "drown": "drowning", "topple": "toppling", "burgle": "burgling",
    "offer": "offering", "falsely": "falsely accusing", "organize": "organizing", "discover": "discovering",
    "encounter": "encountering", "edge": "edging", "singe": "singeing",
}  # fmt: skip


def expand(phrase: str, lists: Mapping[str, Sequence[str]], rng: random.Random) -> str:
    """One random reading of `phrase`; the subject marks stay in place.

    Args:
        phrase: Text of the grammar above.
        lists: The word lists that `{name}` draws from; a name that is not in it stays as it is.
        rng: Where every choice comes from.
    """
    # Innermost choices first, so that only what is chosen draws from the word lists.
    while match := _CHOICE.search(phrase):
        chosen = rng.choice(match.group(1).split("|"))
        phrase = phrase[: match.start()] + chosen + phrase[match.end() :]
    while match := next((m for m in _SLOT.finditer(phrase) if m.group(1) in lists), None):
        phrase = phrase[: match.start()] + rng.choice(lists[match.group(1)]) + phrase[match.end() :]
    return re.sub(r" +([?.!,])", r"\1", re.sub(r" {2,}", " ", phrase)).strip()


def split_subject(text: str) -> tuple[str, str | None]:
    """`(text without marks, the marked subject or None)`; of several subjects the first counts."""
    match = _SUBJECT.search(text)
    return re.sub(r"[<>]", "", text), match.group(1).strip() if match else None


def gerund(act: str) -> str:
    """The act in its -ing form: `hack into a bank` becomes `hacking into a bank`."""
    marks = "<" if act.startswith("<") else ""
    verb, space, rest = act[len(marks) :].partition(" ")
    return marks + _ing(verb) + space + rest


def _ing(verb: str) -> str:
    if verb in _GERUNDS:
        return _GERUNDS[verb]
    if verb.endswith("e") and not verb.endswith(("ee", "oe", "ye")):
        return verb[:-1] + "ing"
    # A short verb that ends consonant, vowel, consonant doubles its last letter: plan, planning.
    if re.fullmatch(r"[^aeiou]*[aeiou][^aeiouwxy]", verb):
        return verb + verb[-1] + "ing"
    return verb + "ing"
