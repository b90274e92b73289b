"""Tokens as HTML: coloured by score, white space visible, and nothing that a prompt says is markup."""

import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import pytest

from interp.display.palette import COLORS, NEUTRAL, contrast
from interp.display.strip import HEAD, TAIL, strip
from interp.display.text import bars, caption, label, lines, printable, shortened, visible
from interp.transcripts import Transcript
from tests.probes.transcripts import transcript

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>\u202egnp.exe"


class Seen(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def with_tokens(made: Transcript, *texts: str) -> Transcript:
    return replace(made, tokens=(*texts, *made.tokens[len(texts) :]))


def test_every_segment_and_token_is_there_in_order() -> None:
    made = transcript("a", 5)
    page = Seen(strip(made))
    heads = re.findall(r"(instruction|template|thinking|close|response)(\d+) tokens?", page.text)
    assert heads == [("instruction", "1"), ("template", "1"), ("thinking", "5"), ("close", "4"), ("response", "3")]
    assert "t0t1t2t3t4" in page.text and "<think>⏎" in page.text and "⏎</think>⏎⏎" in page.text
    titles = [attributes["title"] for tag, attributes in page.tags if tag == "bdi"]
    assert titles == [f"token {place}" for place in range(len(made))]


def test_tokens_have_the_colour_of_their_score() -> None:
    made = transcript("a", 2)
    scores = [0.0, 0.5, 1.0, *[0.2] * (len(made) - 3)]
    styles = [attributes["style"] or "" for tag, attributes in Seen(strip(made, scores)).tags if tag == "bdi"]
    for style, expected in zip(styles, (COLORS["complied"], NEUTRAL, COLORS["refused"]), strict=False):
        assert f"background:{expected};" in style
    for style in styles:
        background, ink = re.findall(r"#[0-9A-F]{6}", style)
        assert contrast(background, ink) >= 4.5


def test_scores_are_there_without_colours() -> None:
    """On GitHub, which takes styles away."""
    made = transcript("a", 4)
    scores = [0.1, 0.2, 0.9, 0.8, 0.9, 0.8, 0.7, 0.6, 0.5, 0.04, 0.3, 0.3, 0.3]
    plain = Seen(re.sub(r' (style|title)="[^"]*"', "", strip(made, scores, edge=made.edge)))
    assert "thinking4 tokensmean 0.85" in plain.text
    assert "⏎0.70</think>0.60⏎0.50⏎ ← edge" in plain.text.replace("0.04", "") and "0.04" in plain.text
    assert {tag for tag, _ in plain.tags} == {
        "table",
        "tbody",
        "tr",
        "th",
        "td",
        "small",
        "br",
        "bdi",
        "sub",
        "b",
        "wbr",
    }


def test_of_a_long_segment_the_beginning_and_the_end_are_shown() -> None:
    page = Seen(strip(transcript("a", 1000)))
    left_out = 1000 - HEAD - TAIL
    assert f"t{HEAD - 1} … {left_out:,} tokens … t{1000 - TAIL}" in page.text
    assert f"t{HEAD}t" not in page.text and "t999" in page.text
    assert len(strip(transcript("a", 20_000), [0.5] * 20_009)) < 40_000


def test_hostile_tokens_are_shown_and_do_nothing() -> None:
    made = with_tokens(transcript("a", 3), HOSTILE, "\u200b\x00\ufeff", '"><b>')
    for page in (strip(made), strip(made, [0.5] * len(made), edge=made.edge)):
        seen = Seen(page)
        assert {tag for tag, _ in seen.tags} <= {
            "table",
            "tbody",
            "tr",
            "th",
            "td",
            "small",
            "br",
            "bdi",
            "sub",
            "b",
            "wbr",
        }
        assert all(set(attributes) <= {"style", "title", "scope", "width"} for _, attributes in seen.tags)
        assert "<script>alert(1)</script>" in seen.text and "onerror=alert(1)" in seen.text
        assert "\u202e" not in page and r"\u202egnp.exe" in seen.text and r"\u200b\x00\ufeff" in seen.text


@pytest.mark.parametrize("text", ["", " \t\r\n", "a\u202eb\u2066c", "\u00ad", "e\u0301", "שלום", "<&>", "\ud800"])
def test_what_is_visible_is_printable_and_safe(text: str) -> None:
    for shown in (visible(text), printable(text)):
        assert all(c.isprintable() for c in shown)
    assert "<" not in label(text) and "<" not in caption(text) and unescape(label(text)) == visible(text)


def test_white_space_has_signs_of_its_own() -> None:
    assert visible("a b\n\t\r") == "a␣b⏎⇥␍" and visible("") == "⋯" and printable("a b") == "a b"


def test_long_texts_are_shortened_and_broken() -> None:
    assert shortened("abcdefghij", 5) == "ab…ij" and shortened("abcde", 5) == "abcde"
    assert lines("one <two> three", 9) == "one &lt;two&gt;<br>three"


def test_scores_become_bars() -> None:
    assert bars([0, 0.5, 0.99, 1]) == "▁▅██"
    assert bars([0] * 500 + [1] * 500, most=4) == "▁▁██" and bars([]) == ""
