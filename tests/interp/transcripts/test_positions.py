"""Named positions against a list of labels walked by hand."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interp.errors import CliffscopeError
from interp.transcripts import Transcript
from interp.transcripts.positions import SEGMENTS, check_position


def _transcript(prompt: list[str], rest: list[str], state: str = "closed", id: str = "r1") -> Transcript:
    labels = (*prompt, *rest)
    n = len(labels)
    return Transcript(id, tuple(range(100, 100 + n)), tuple("x" * n), labels, len(prompt), state)


counts = st.integers(0, 40)


@st.composite
def transcripts(draw: Any) -> Transcript:
    prompt = ["template"] * draw(counts) + ["system"] * draw(counts) + ["template"] * draw(counts)
    prompt += ["instruction"] * draw(st.integers(1, 9)) + ["template"] * draw(counts)
    n_thinking = draw(counts)
    rest = ["template"] * draw(counts) + ["thinking"] * n_thinking + ["close"] * draw(st.integers(1, 5))
    rest += ["response"] * draw(counts)
    return _transcript(prompt, rest, "closed" if n_thinking else "empty")


@given(transcripts(), st.integers(-60, 60))
def test_segment_and_index(transcript: Transcript, index: int) -> None:
    for segment in SEGMENTS:
        mine = [place for place, label in enumerate(transcript.labels) if label == segment]
        name = f"{segment}:{index}"
        if -len(mine) <= index < len(mine):
            assert transcript.position(name) == mine[index]
        else:
            with pytest.raises(CliffscopeError, match=f"rollout 'r1': no position '{name}'"):
                transcript.position(name)


@given(transcripts())
def test_named_positions(transcript: Transcript) -> None:
    labels = list(transcript.labels)
    assert transcript.position("inst") == len(labels) - 1 - labels[::-1].index("instruction")
    assert transcript.position("post_inst") == transcript.prompt_length - 1
    assert transcript.edge == transcript.position("close:-1")
    assert labels[transcript.edge] == "close" and labels[transcript.edge + 1 :].count("close") == 0


@given(transcripts(), st.floats(0, 1))
def test_fractions_of_the_thinking(transcript: Transcript, fraction: float) -> None:
    thinking = [place for place, label in enumerate(transcript.labels) if label == "thinking"]
    name = f"think:{fraction}"
    if not thinking:
        with pytest.raises(CliffscopeError, match=r"rollout 'r1'.*thinking is empty"):
            transcript.position(name)
        return
    at = transcript.position(name)
    assert at == thinking[round(fraction * (len(thinking) - 1))]
    assert abs(at - thinking[0] - fraction * (len(thinking) - 1)) <= 0.5 + 1e-9
    assert transcript.position("think:0") == thinking[0]
    assert transcript.position("think:1") == transcript.position("think:1.0") == thinking[-1]


@given(transcripts(), st.integers(-300, 300))
def test_token_indices(transcript: Transcript, index: int) -> None:
    n = len(transcript)
    for name in (index, str(index)):
        if -n <= index < n:
            assert transcript.position(name) == index % n
        else:
            with pytest.raises(CliffscopeError, match=f"'r1'.*it has {n} tokens"):
                transcript.position(name)


@pytest.mark.parametrize(
    "name",
    ["", "edge", "think", "think:", "think:1.5", "think:-0.1", "think:nan", "think:inf", "think:25%", "close",
     "close:", "close:x", "close:1.5", "thinking:0.5", "answer:0", "inst:0", "post_inst:-1", "1.5", "close:-1:0",
     True],
)  # fmt: skip
def test_bad_names_list_the_good_ones(name: Any) -> None:
    transcript = _transcript(["instruction"], ["thinking", "close", "response"])
    for call in (check_position, transcript.position):
        with pytest.raises(CliffscopeError, match=r"post_inst, think:F .* token index") as error:
            call(name)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name", ["inst", "post_inst", "think:0.25", "think:.5", "close:-1", "response:0", "7", -3, " inst "]
)
def test_good_names_need_no_rollout(name: Any) -> None:
    check_position(name)


@pytest.mark.parametrize(
    ("rest", "state", "name", "why"),
    [
        (["thinking"], "unclosed", "close:-1", "never closed"),
        (["thinking"], "unclosed", "response:0", "never closed"),
        (["response"], "absent", "close:-1", "no thinking; read post_inst"),
        (["response"], "absent", "think:0.5", "no thinking; read post_inst"),
        (["close", "response"], "empty", "think:0.5", "empty; read close:-1"),
        (["close", "response"], "empty", "thinking:0", "empty; read close:-1"),
        (["thinking", "close"], "closed", "response:0", "no token ends in its response"),
        (["thinking", "close", "close"], "closed", "close:-3", "its close has 2 tokens"),
        ([], "absent", "response:0", "nothing follows"),
        (["response"], "absent", "system:0", "no token ends in its system"),
    ],
)
def test_missing_positions_say_whose_and_why(rest: list[str], state: str, name: str, why: str) -> None:
    transcript = _transcript(["template", "instruction"], rest, state, id="q-17")
    with pytest.raises(CliffscopeError, match=f"rollout 'q-17': no position '{name}': .*{why}"):
        transcript.position(name)


def test_no_instruction() -> None:
    transcript = _transcript(["template"], ["response"], "absent")
    with pytest.raises(CliffscopeError, match="empty or merged"):
        transcript.position("inst")
