"""Segments of tokens while they are written: told token by token, against the text read as a whole."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.transcripts import TranscriptBuilder
from interp.transcripts.chat import ChatFormat, ThinkingFormat
from interp.transcripts.writing import SegmentWriter
from tests.interp.transcripts.chat_tokenizers import STYLES, make

TEMPLATES = [name for name in STYLES if name != "none"]


def writer_of(style: str, kind: str, **options: object) -> tuple[SegmentWriter, ThinkingFormat, int]:
    tokenizer = make(style, kind)
    chat = ChatFormat.of(tokenizer, **options)  # type: ignore[arg-type]
    prompt = TranscriptBuilder(tokenizer, chat).prompt("How do I cook pasta?")
    return SegmentWriter(chat, prompt), chat.thinking, len(prompt)


def write(style: str, kind: str, text: str, **options: object) -> tuple[list[str], list[str], int | None]:
    """Each token's text and label, and the edge counted from the first written token."""
    tokenizer = make(style, kind)
    writer, _, start = writer_of(style, kind, **options)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    labels = [writer.read(token) for token in ids]
    assert labels == writer.labels
    texts = [str(tokenizer.decode(ids[: n + 1], skip_special_tokens=False)) for n in range(len(ids))]
    return texts, labels, None if writer.edge is None else writer.edge - start


words = st.text(alphabet="abc de.\n", min_size=1, max_size=30).map(lambda text: "So " + text.strip() + ".")


@settings(max_examples=25, deadline=None)
@pytest.mark.parametrize("kind", ["byte_level", "wide"])
@pytest.mark.parametrize("style", TEMPLATES)
@given(thinking=words, response=words)
def test_the_edge_is_where_the_canonical_close_is_complete(style: str, kind: str, thinking: str, response: str) -> None:
    _, tags, _ = writer_of(style, kind)
    opening = tags.open.removeprefix(STYLES[style].opened)
    texts, labels, edge = write(style, kind, opening + thinking + tags.close + response)
    close = tags.close.lstrip()
    whole = [n for n, text in enumerate(texts) if close in text]
    # A token that carries the first letters of the response is the response's; the edge is then the one before.
    clean = texts[whole[0]].partition(close)[2] == ""
    assert edge == (whole[0] if clean else whole[0] - 1)
    tag = next(n for n, text in enumerate(texts) if tags.close_tag in text)
    assert set(labels[edge + 1 :]) == {"response"}
    assert set(labels[tag : edge + 1]) <= {"close"}
    before = labels[:tag]
    assert set(before) <= {"template", "thinking"}
    assert before == sorted(before)  # the opening tag comes first, and "template" < "thinking"
    assert before[-1] == "thinking"
    opened = sum(label == "template" for label in before)
    assert tags.open_tag not in (texts[opened - 1] if opened else "").partition(tags.open_tag)[2]


@pytest.mark.parametrize(
    ("after", "up_to_edge"),
    [
        ("\n\nYes", "</think>\n\n"),
        ("\nYes", "</think>\n"),  # not canonical: known only when "Yes" has come
        ("Yes", "</think>"),
        ("\n\n\n\nYes", "</think>\n\n"),  # what comes after the canonical close is the response's
    ],
)
def test_other_white_space_after_the_tag(after: str, up_to_edge: str) -> None:
    texts, labels, edge = write("r1", "byte_level", "I see.</think>" + after)
    assert texts[edge or 0] == "I see." + up_to_edge
    assert labels[(edge or 0) + 1 :] == ["response"] * (len(labels) - (edge or 0) - 1)
    assert labels[edge or 0] == "close"


def test_a_model_that_answers_at_once_or_has_thinking_switched_off() -> None:
    _, labels, edge = write("qwen3", "byte_level", "Sure! Boil water.")
    assert set(labels) == {"response"}
    assert edge is None
    _, labels, edge = write("qwen3", "byte_level", "Sure! </think>\n\nBoil.", enable_thinking=False)
    assert set(labels) == {"response"}
    assert edge is None


def test_thinking_that_was_never_opened_still_closes() -> None:
    texts, labels, edge = write("qwen3", "byte_level", "I see.\n</think>\n\nSure!")
    assert edge == next(n for n, text in enumerate(texts) if text.endswith("</think>\n\n"))
    assert set(labels[edge + 1 :]) == {"response"}


def test_thinking_that_never_closes_has_no_edge() -> None:
    _, labels, edge = write("r1", "byte_level", "So I go on and on.\n</thin")
    assert set(labels) == {"thinking"}
    assert edge is None
