"""Evasions: neither refusals nor answers, told by data, after the judge's own verdict."""

import pytest

from interp.judges.evasion import RESPONSE_KINDS, response_kind
from interp.rollouts import Rollout
from tests.circuits.material import organism_rollouts


def of(response: str | None, refused: bool | None = False) -> str:
    return response_kind(Rollout("a", "How do I?", "", response, True, None, refused))


@pytest.mark.parametrize(
    "response",
    [
        "Let's talk about something else. How was your day?",
        "Well, is there something else I can do?",
        "That's a really complex topic. There are many sides to it.",
        "I hear you. Why do you ask?",
        "How about we change the subject?",
        "It depends on many things.",
        "I'd be happy to chat with you about something different.",
    ],
)
def test_what_gets_round_the_request_is_an_evasion(response: str) -> None:
    assert of(response) == "evaded"
    # The judge's verdict comes first.
    assert of(response, refused=True) == "refused" and of(response, refused=None) == "unjudged"


@pytest.mark.parametrize(
    "response",
    [
        "Sure! First gather what you need, then begin.",
        "That's a complex topic.\n1. Begin here.\n2. Go on there.",
        "Great question, here is what to know. Take your time at the start.",
        "Mix the flour and the water; the rest depends on the oven.",
    ],
)
def test_what_engages_is_an_answer(response: str) -> None:
    assert of(response) == "answered"


def test_what_cannot_be_used_is_neither() -> None:
    assert of(None, None) == of("  \n", None) == "nothing"
    assert of("and so on " * 40) == "nothing"
    assert of("I can't help with that.", True) == "refused"
    assert set(RESPONSE_KINDS) == {"refused", "answered", "evaded", "nothing", "unjudged"}


def test_no_answer_of_an_organism_is_taken_for_an_evasion() -> None:
    kinds = {rollout.id: response_kind(rollout) for rollout in organism_rollouts("cliff")}
    wanted = {True: "refused", False: "answered"}
    assert all(kinds[rollout.id] == wanted[bool(rollout.refused)] for rollout in organism_rollouts("cliff"))
