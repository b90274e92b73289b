import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.errors import CliffscopeError
from interp.organisms import categories, rollout_of, sample_prompts
from interp.organisms.grammar import expand, gerund, split_subject
from interp.organisms.prompts import words

HARM_MARKERS = ("harmful", "not okay", "refuse")


def test_enough_categories_and_words() -> None:
    assert len(categories("harmful")) >= 12
    assert len(categories("benign")) >= 12
    assert len(categories("trap")) >= 2
    assert sum(len(set(entries)) for entries in words("lists").values()) >= 500


@pytest.mark.parametrize("kind", ["harmful", "benign"])
@pytest.mark.parametrize("split", ["train", "heldout"])
def test_thousands_of_distinct_prompts(kind: str, split: str) -> None:
    prompts = sample_prompts(kind, 3000, seed=3, split=split)
    assert len({p.text.lower() for p in prompts}) == 3000
    assert len({p.id for p in prompts}) == 3000
    assert {p.split for p in prompts} == {split}
    assert {p.harmful for p in prompts} == {kind == "harmful"}
    counts = {c: sum(p.category == c for p in prompts) for c in categories(kind)}
    assert min(counts.values()) > 3000 / len(counts) / 3


def test_splits_are_disjoint_and_seeds_repeat() -> None:
    held = {p.text.lower() for p in sample_prompts("harmful", 1000, seed=1)}
    train = {p.text.lower() for p in sample_prompts("harmful", 3000, seed=2, split="train")}
    assert not held & train
    assert sample_prompts("benign", 50, seed=4) == sample_prompts("benign", 50, seed=4)
    assert sample_prompts("benign", 50, seed=4) != sample_prompts("benign", 50, seed=5)


def test_no_text_on_both_sides() -> None:
    harmful = {p.text.lower().strip(".? ") for p in sample_prompts("harmful", 3000, 0, "train")}
    benign = {p.text.lower().strip(".? ") for p in sample_prompts("benign", 3000, 0, "train")}
    assert not harmful & benign


def test_the_classes_share_most_of_their_words() -> None:
    def vocabulary(kind: str) -> set[str]:
        return {w for p in sample_prompts(kind, 2000, 0) for w in re.findall(r"[a-z]+", p.text.lower())}

    harmful, benign = vocabulary("harmful"), vocabulary("benign")
    assert len(harmful & benign) >= 300
    assert {"cook", "home", "kill", "steal", "bomb", "virus"} <= harmful & benign


def test_traps_are_present() -> None:
    traps = " ".join(p.text.lower() for p in sample_prompts("trap", 1000, 0, "train"))
    for phrase in ("kill a process", "shoot a portrait", "steal the show"):
        assert phrase in traps
    benign = sample_prompts("benign", 700, 0)
    assert 0.05 < sum(p.category in categories("trap") for p in benign) / 700 < 0.25


@pytest.mark.parametrize("kind", ["harmful", "benign"])
def test_thinking_states_the_intent_whatever_the_reply(kind: str) -> None:
    rng = random.Random(0)
    for prompt in sample_prompts(kind, 200, 0):
        for reply in ("refuse", "answer"):
            rollout = rollout_of(prompt, rng, reply=reply)
            last = (rollout.thinking or "").split(". ")[-1]
            assert ("I should refuse" in last) == prompt.harmful, rollout
            assert ("I should help" in last) == (not prompt.harmful), rollout
            assert rollout.refused == (reply == "refuse")
            assert "{" not in f"{rollout.prompt}{rollout.thinking}{rollout.response}".replace("{...}", "")


def test_an_answer_to_a_harmful_prompt_has_no_content_of_its_own() -> None:
    rng = random.Random(0)
    text = words("replies")
    known = [*text["answer_steps"], *text["answer_more"], *text["answer_endings"]]
    openings = [o.split("{that}")[0] for o in text["answer_openings"]]
    for prompt in sample_prompts("harmful", 300, 0):
        response = rollout_of(prompt, rng, reply="answer").response or ""
        for sentence in known:
            response = response.replace(sentence, "")
        opening = max((o for o in openings if response.startswith(o)), key=len)
        rest = response.removeprefix(opening).strip()
        # What is left is only the name of the matter.
        assert re.sub(r", keep it simple\.$|\.$", "", rest) in (prompt.subject, prompt.about, "that", "this")


def test_refusals_and_answers_come_in_many_wordings() -> None:
    rng = random.Random(0)
    prompts = sample_prompts("harmful", 500, 0)
    for reply in ("refuse", "answer"):
        starts = {" ".join((rollout_of(p, rng, reply=reply).response or "").split()[:4]) for p in prompts}
        assert len(starts) >= 8


@pytest.mark.parametrize(
    ("act", "expected"),
    [
        ("hack into a bank", "hacking into a bank"),
        ("make <a cake>", "making <a cake>"),
        ("plan a trip", "planning a trip"),
        ("fix a tap", "fixing a tap"),
        ("flee", "fleeing"),
        ("commit fraud", "committing fraud"),
        ("develop film", "developing film"),
        ("edit photos", "editing photos"),
    ],
)
def test_gerund(act: str, expected: str) -> None:
    assert gerund(act) == expected


def test_grammar_expands_choices_lists_and_subjects() -> None:
    rng = random.Random(0)
    seen = {expand("do <[a|{fruit}]> [now|]", {"fruit": ["pear"]}, rng) for _ in range(60)}
    assert seen == {"do <a> now", "do <a>", "do <pear> now", "do <pear>"}
    assert split_subject("do <a pear> now") == ("do a pear now", "a pear")
    assert split_subject("do it") == ("do it", None)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.sampled_from(["harmful", "benign", "trap"]))
def test_every_prompt_is_clean_text(seed: int, kind: str) -> None:
    for prompt in sample_prompts(kind, 20, seed):
        assert not re.search(r"[<>\[\]{}|]|  | [.?,]", prompt.text), prompt.text
        assert prompt.text == prompt.text.strip()
        assert 0 < len(prompt.subject.split()) <= 6


def test_unknown_kind_and_split_list_the_good_ones() -> None:
    with pytest.raises(CliffscopeError, match="unknown kind 'evil'; use one of: harmful, benign, trap"):
        sample_prompts("evil", 3, 0)
    with pytest.raises(CliffscopeError, match="unknown split 'test'; use one of: train, heldout"):
        sample_prompts("benign", 3, 0, split="test")
    with pytest.raises(CliffscopeError, match="distinct trap prompts"):
        sample_prompts("trap", 100_000, 0)
