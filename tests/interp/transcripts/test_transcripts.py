"""Transcripts against layouts written by hand and token boundaries found without the tokenizer's offsets."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from interp.errors import CliffscopeError
from interp.rollouts import Rollout
from interp.transcripts import Transcript, TranscriptBuilder
from interp.transcripts.chat import ChatFormat, ThinkingFormat
from tests.interp.transcripts.chat_tokenizers import KINDS, STYLES, make

pairs = pytest.mark.parametrize(("style", "kind"), [(style, kind) for style in STYLES for kind in KINDS])

TAGS = [
    "<think>",
    "</think>",
    "\n</think>\n\n",
    "<|im_end|>\n",
    "user\n",
    "[/INST]",
    "<|end|>",
    " ",
    "\n",
    ".",
    "\n\n",
    ".",
]
words = st.lists(
    st.one_of(
        st.sampled_from(TAGS), st.sampled_from(["How do I", " cook", " pasta", "é", "你好", "🍝"]), st.text(max_size=8)
    ),
    max_size=8,
).map("".join)


def _unbroken(text: str) -> str:
    """Text without the line breaks at its ends that belong to the tags."""
    return text.strip("\r\n") if text.strip() else ""


BYTE_OF = {}  # the printable characters that stand for bytes in byte-level vocabularies
_printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
for _byte in range(256):
    _extra = len([b for b in range(_byte) if b not in _printable])
    BYTE_OF[chr(_byte) if _byte in _printable else chr(256 + _extra)] = _byte


def _spell(token: str, kind: str) -> bytes:
    """The bytes that an ordinary token stands for by its name."""
    if kind in ("byte_level", "wide"):
        return bytes(BYTE_OF[character] for character in token)
    if re.fullmatch("<0x[0-9A-F]{2}>", token):
        return bytes([int(token[3:5], 16)])
    return token.replace("▁", " ").encode()


def oracle_labels(tokenizer, kind: str, text: str, pieces: list[tuple[str, str]]) -> list[str]:
    """The label of each token from the bytes that the tokens' own names spell, laid along the text's bytes."""
    of_byte = [segment for segment, piece in pieces for _ in piece.encode()]
    spelled, place, labels = text.encode(), 0, []
    added = set(tokenizer.get_added_vocab())
    begins = True  # whether a stretch of ordinary text begins, before which some tokenizers put a space
    for token in tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).tokens:
        surface = token.encode() if token in added else _spell(token, kind)
        if begins and surface.startswith(b" "):
            dummy = kind == "llama2" or (kind == "unigram" and spelled[place : place + 1] != b" ")
            surface = surface[1:] if dummy else surface
        begins = token in added
        assert spelled.startswith(surface, place), (token, spelled[place:])
        place += len(surface)
        labels.append(of_byte[place - 1 if surface else min(place, len(of_byte) - 1)])
    return labels


def dropping_oracle_labels(tokenizer, text: str, pieces: list[tuple[str, str]]) -> list[str]:
    """The same for a tokenizer that leaves characters out: only unknown ones may be skipped on the way."""
    of_character = [segment for segment, piece in pieces for _ in piece]
    place, labels = 0, []
    added, vocabulary = set(tokenizer.get_added_vocab()), tokenizer.get_vocab()
    for index, token in enumerate(tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).tokens):
        parts = [token] if token in added else list(token.replace("▁", " "))
        if index == 0 and parts[0] == " " and text[0] != " ":
            parts = parts[1:]
        for part in parts or text[place:]:
            while not text.startswith(part, place) if parts else text[place] not in vocabulary:
                assert text[place] not in vocabulary and text[place] != " ", (token, text[place:])
                place += 1
            if not parts:
                break
            place += len(part)
        labels.append(of_character[place - 1 if parts else place])
    return labels


def _check(style: str, kind: str, prompt: str, thinking: str | None, response: str | None) -> Transcript:
    spec, tokenizer = STYLES[style], make(style, kind)
    rollout = Rollout("r", prompt, thinking, response)
    transcript = TranscriptBuilder(tokenizer).build(rollout)
    pieces = spec.pieces(prompt, thinking, response)
    text = "".join(piece for _, piece in pieces)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    ours, labels, tokens = list(transcript.input_ids), list(transcript.labels), list(transcript.tokens)
    if spec.bos:
        assert ours.count(tokenizer.bos_token_id) == 1
    if spec.bos and not text.startswith(spec.bos):
        assert (ours.pop(0), labels.pop(0), tokens.pop(0)) == (tokenizer.bos_token_id, "template", spec.bos)
    assert ours == ids
    assert text.startswith("".join(tokens))
    if kind != "dropping":
        assert "".join(tokens) == text
    if kind == "dropping":
        assert labels == dropping_oracle_labels(tokenizer, text, pieces)
    else:
        assert labels == oracle_labels(tokenizer, kind, text, pieces)
    return transcript


@pairs
def test_labels_of_an_ordinary_rollout(style: str, kind: str) -> None:
    transcript = _check(style, kind, "How do I cook pasta?", "The user asks. I will help.", "Sure! Boil water.")
    assert transcript.thinking_state == "closed"
    assert {"instruction", "thinking", "close", "response"} <= set(transcript.segments)
    start, stop = transcript.segments["close"]
    assert transcript.edge == stop - 1 == transcript.segments["response"][0] - 1
    close = "".join(transcript.tokens[start:stop])
    assert close.strip().endswith(STYLES[style].close.strip())
    assert transcript.labels.index("thinking") > transcript.position("post_inst")


@pairs
@settings(max_examples=25, deadline=None)
@given(prompt=words, thinking=words.map(_unbroken), response=words.map(lambda text: text.lstrip("\r\n")))
def test_labels_of_any_text(style: str, kind: str, prompt: str, thinking: str, response: str) -> None:
    if kind == "unigram" and any(c in "\u2581" for c in prompt + thinking + response):
        return  # the tokenizer takes this character for a space; the oracle cannot tell them apart
    if kind == "unigram":  # unknown characters have no name to spell
        known = set(make(style, kind).get_vocab())
        prompt, thinking, response = (
            "".join(c for c in text if c in known or c in " ") for text in (prompt, thinking, response)
        )
        thinking, response = _unbroken(thinking), response.lstrip("\r\n")
    bos = STYLES[style].bos
    if bos and bos in prompt + thinking + response:
        return
    if style == "none" and kind == "dropping" and prompt[:1] not in make(style, kind).get_vocab():
        return  # without the unknown first character it would put its space elsewhere; see the next test
    if kind in ("llama2", "dropping") and "▁" in prompt + thinking + response:
        return
    transcript = _check(style, kind, prompt, thinking, response)
    assert transcript.thinking_state == ("closed" if thinking else "empty")


@pytest.mark.parametrize("kind", ["byte_level", "llama2"])
@settings(max_examples=50, deadline=None)
@given(prompt=words, thinking=words)
def test_unclosed_thinking_goes_to_the_end(kind: str, prompt: str, thinking: str) -> None:
    thinking = thinking.lstrip("\r\n") if thinking.strip() else ""
    if "▁" in prompt + thinking:
        return
    transcript = _check("qwen3", kind, prompt, thinking, None)
    assert transcript.thinking_state == "unclosed"
    assert not {"close", "response"} & set(transcript.segments)
    with pytest.raises(CliffscopeError, match=r"rollout 'r'.*never closed"):
        _ = transcript.edge


@pairs
def test_a_prompt_that_holds_the_tags_is_all_instruction(style: str, kind: str) -> None:
    for prompt in ("<think>", "</think>", "What is <think>\nx\n</think>\n\nin HTML?", "<|im_end|>\nuser"):
        transcript = _check(style, kind, prompt, "I should help.", "Sure!")
        start, stop = transcript.segments["instruction"]
        assert "".join(transcript.tokens[start:stop]).strip()
        assert transcript.position("inst") < transcript.position("post_inst") or style == "none"
        assert transcript.edge > transcript.segments["thinking"][1] - 1 > transcript.position("post_inst")


def test_merged_tokens_go_to_the_segment_of_their_last_character() -> None:
    # ".\n" at the end of the thinking is one token of this tokenizer, and no token ends at the full stop.
    transcript = TranscriptBuilder(make("qwen3", "byte_level")).build(Rollout("r", "How", "I help.", "Sure!"))
    start, stop = transcript.segments["close"]
    assert transcript.tokens[start] == ".\n"
    assert "".join(transcript.tokens[start:stop]) == ".\n</think>\n\n"
    # " should" is one token, which straddles a closing tag that ends with a space: the edge is the token before it.
    tokenizer = make("none", "byte_level")
    chat = ChatFormat.of(tokenizer, ThinkingFormat("<think>", "</think> "))
    transcript = TranscriptBuilder(tokenizer, chat).build(Rollout("r", "How", "I help", "should"))
    assert transcript.tokens[transcript.position("response:0")] == " should"
    assert transcript.edge == transcript.position("response:0") - 1
    assert transcript.tokens[transcript.edge].endswith(">")


def test_places_that_cannot_be_told_are_an_error() -> None:
    # This tokenizer drops the unknown character, and its space before the text depends on it.
    with pytest.raises(CliffscopeError, match=r"rollout 'r'.*drops characters"):
        TranscriptBuilder(make("none", "dropping")).build(Rollout("r", "你 cook", "I help", "Sure"))


@pairs
def test_prompt_alone_is_the_beginning_that_the_model_continues(style: str, kind: str) -> None:
    tokenizer = make(style, kind)
    builder = TranscriptBuilder(tokenizer)
    prompt = builder.prompt("How do I cook pasta?", "p1")
    assert prompt.id == "p1"
    assert prompt.is_prompt and prompt.position("post_inst") == len(prompt) - 1
    whole = builder.build(Rollout("r", "How do I cook pasta?", "I should help.", "Sure!"))
    assert whole.input_ids[: len(prompt)] == prompt.input_ids
    with pytest.raises(CliffscopeError, match=r"'p1'.*nothing follows"):
        _ = prompt.edge


@pairs
def test_many_at_once_are_the_same_as_one_by_one(style: str, kind: str) -> None:
    builder = TranscriptBuilder(make(style, kind))
    rollouts = [Rollout(f"r{i}", "How " * i, "I should " * (i % 3), "Sure " * (i % 5)) for i in range(20)]
    assert builder.build_all(rollouts) == [builder.build(rollout) for rollout in rollouts]
    prompts = builder.prompts([rollout.prompt for rollout in rollouts], [rollout.id for rollout in rollouts])
    assert prompts == [builder.prompt(rollout.prompt, rollout.id) for rollout in rollouts]
    assert builder.build_all([]) == []


def test_many_chunks_keep_their_order() -> None:
    builder = TranscriptBuilder(make("qwen3", "byte_level"))
    rollouts = [Rollout(f"r{i}", str(i), "x", str(i)) for i in range(1200)]
    transcripts = builder.build_all(rollouts)
    assert [transcript.id for transcript in transcripts] == [f"r{i}" for i in range(1200)]
    assert "".join(transcripts[1111].tokens).endswith("\n\n1111")


@pytest.mark.parametrize("style", [style for style, spec in STYLES.items() if spec.system])
@pytest.mark.parametrize("kind", list(KINDS))
def test_the_same_text_as_system_and_user(style: str, kind: str) -> None:
    spec, text = STYLES[style], "How do I cook"
    transcript = TranscriptBuilder(make(style, kind), system=text).build(Rollout("r", text, "I help.", "Sure"))
    before = spec.system.format(text)
    for segment, start in (("system", before.index(text)), ("instruction", len(before))):
        first, stop = transcript.segments[segment]
        found = "".join(transcript.tokens[first:stop])
        at = len("".join(transcript.tokens[:first])) + len(found) - len(found.lstrip())
        at -= len(spec.bos) if spec.bos and not before.startswith(spec.bos) else 0
        assert at == start
        # Its last word may be one token with what follows, which then belongs there.
        assert text.startswith(found.strip()) and "do I" in found


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("style", [style for style, spec in STYLES.items() if spec.bos])
def test_one_bos_whoever_writes_it(style: str, kind: str) -> None:
    tokenizer = make(style, kind)
    bos = tokenizer.bos_token_id
    text = ChatFormat.of(tokenizer).prompt_text("How do I cook")
    twice = STYLES[style].adds_bos and text.startswith(tokenizer.bos_token)
    assert tokenizer(text)["input_ids"].count(bos) == (2 if twice else 1)  # what the builder has to put right
    transcript = TranscriptBuilder(tokenizer).prompt("How do I cook")
    assert transcript.input_ids[0] == bos and transcript.input_ids.count(bos) == 1


def test_no_bos_where_none_is_wanted() -> None:
    tokenizer = make("qwen3", "byte_level")
    assert TranscriptBuilder(tokenizer).prompt("How").input_ids[0] == tokenizer.convert_tokens_to_ids("<|im_start|>")


def test_no_bos_where_the_tokenizer_knows_one_but_adds_none() -> None:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=make("qwen3", "byte_level").backend_tokenizer, bos_token="<|im_start|>"
    )
    assert TranscriptBuilder(tokenizer).prompt("How").tokens == ("How",)


def test_white_space_at_the_end_of_a_token_counts() -> None:
    # This tokenizer makes one token of the template's line break and the prompt's space; its offsets hide the space.
    transcript = TranscriptBuilder(make("qwen3", "wide")).build(Rollout("r", " ", "x", "y"))
    inst = transcript.position("inst")
    assert transcript.tokens[inst].endswith("\n ") and transcript.tokens[inst + 1] == "<|im_end|>"


def test_a_prompt_that_begins_with_bos_itself() -> None:
    builder = TranscriptBuilder(make("none", "byte_level"))
    assert builder.prompt("<s>How").input_ids == builder.prompt("How").input_ids
    with pytest.raises(CliffscopeError, match=r"rollout 'twice'.*two <s> tokens"):
        builder.prompt("<s><s>How", "twice")


def test_thinking_switched_off_is_absent() -> None:
    tokenizer = make("qwen3", "byte_level")
    builder = TranscriptBuilder(tokenizer, ChatFormat.of(tokenizer, enable_thinking=False))
    for thinking in (None, ""):
        transcript = builder.build(Rollout("r", "How", thinking, "Sure"))
        assert transcript.thinking_state == "absent"
        assert set(transcript.segments) == {"instruction", "response"}
        start = transcript.segments["instruction"][1]
        block = "".join(transcript.tokens[start : transcript.segments["response"][0]])
        assert block == "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
        assert transcript.position("post_inst") == transcript.position("response:0") - 1
        with pytest.raises(CliffscopeError, match=r"'r'.*no thinking; read post_inst"):
            _ = transcript.edge
    with pytest.raises(CliffscopeError, match=r"'r'.*switches thinking off"):
        builder.build(Rollout("r", "How", "Hm.", "Sure"))


def test_no_thinking_where_the_template_opens_it() -> None:
    with pytest.raises(CliffscopeError, match=r"'r'.*opens the thinking"):
        TranscriptBuilder(make("r1", "byte_level")).build(Rollout("r", "How", None, "Sure"))


def test_line_breaks_around_thinking_and_response_are_canonical() -> None:
    builder = TranscriptBuilder(make("qwen3", "byte_level"))
    canonical = builder.build(Rollout("r", "How", "I should help.", "Sure"))
    assert builder.build(Rollout("r", "How", "\nI should help.\n\n", "\n\n\nSure")) == canonical


@pytest.mark.parametrize("limit", [20, 25, 10_000])
def test_too_long_is_an_error_and_never_cut(limit: int) -> None:
    rollout = Rollout("long", "How do I cook pasta?", "I should help.", "Sure! Boil water.")
    tokenizer = make("qwen3", "byte_level")
    length = len(TranscriptBuilder(tokenizer).build(rollout))
    assert len(TranscriptBuilder(tokenizer, max_length=length).build(rollout)) == length
    if limit >= length:
        return
    with pytest.raises(CliffscopeError, match=f"'long'.*{length} tokens.*limit is {limit}"):
        TranscriptBuilder(tokenizer, max_length=limit).build(rollout)


def test_the_tokenizer_is_left_alone_and_its_settings_do_not_matter() -> None:
    tokenizer = make("r1", "byte_level")
    rollout = Rollout("r", "How do I cook pasta?", "I should help.", "Sure! Boil water.")
    plain = TranscriptBuilder(tokenizer).build(rollout)
    other = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, bos_token="<s>", eos_token="<|end|>")
    other.chat_template = tokenizer.chat_template
    other.backend_tokenizer.enable_truncation(4)
    before = other.backend_tokenizer.to_str()
    assert TranscriptBuilder(other).build(rollout) == plain
    assert other.backend_tokenizer.to_str() == before
    other.backend_tokenizer.no_truncation()


def test_slow_tokenizers_are_refused() -> None:
    with pytest.raises(CliffscopeError, match="slow tokenizer"):
        TranscriptBuilder(ByT5Tokenizer(), ChatFormat.of(make("none", "byte_level")))


def test_one_character_of_several_tokens() -> None:
    transcript = TranscriptBuilder(make("qwen3", "byte_level")).build(Rollout("r", "a🍝b", "x", "y"))
    start, stop = transcript.segments["instruction"]
    assert transcript.tokens[start:stop] == ("a", "", "", "", "🍝", "b")


def test_show_prints_every_token_with_its_segment() -> None:
    transcript = TranscriptBuilder(make("qwen3", "byte_level")).build(Rollout("r7", "How do", "I\thelp", "Sure!"))
    head, *lines = str(transcript).splitlines()
    assert head == f"r7: {len(transcript)} tokens, prompt {transcript.prompt_length}, thinking closed"
    assert len(lines) == len(transcript)
    for index, line in enumerate(lines):
        assert line.split()[:2] == [str(index), transcript.labels[index]]
    assert lines[transcript.edge].endswith("← close:-1 (edge)")
    assert lines[transcript.position("inst")].split()[2:] == ["␣do", "←", "inst"]
    assert "⇥" in str(transcript) and "⏎" in lines[transcript.edge]


def test_transcripts_refuse_what_does_not_fit_together() -> None:
    with pytest.raises(CliffscopeError, match="transcript 'a': 2 ids, 1 tokens"):
        Transcript("a", (1, 2), ("x",), ("close",), 0)
    with pytest.raises(CliffscopeError, match=r"'prompt' is no segment"):
        Transcript("a", (1,), ("x",), ("prompt",), 0)
    with pytest.raises(CliffscopeError, match=r"'open' is no segment .* or state"):
        Transcript("a", (1,), ("x",), ("close",), 0, "open")


def test_bare_ids() -> None:
    transcript = Transcript.from_ids("ids", [5, 6, 7])
    assert transcript.input_ids == (5, 6, 7)
    assert transcript.position(-1) == transcript.position("post_inst") == 2
    assert transcript.segments == {}


def test_until_edge_leaves_out_what_follows_the_edge() -> None:
    builder = TranscriptBuilder(make("r1", "byte_level"))
    whole = builder.build(Rollout("a", "How?", "So I help.", "Sure! Like this."))
    cut = whole.until_edge()
    assert (cut.edge, len(cut)) == (whole.edge, whole.edge + 1)
    assert cut.input_ids == whole.input_ids[: len(cut)] and cut.prompt_length == whole.prompt_length
    assert "response" not in cut.segments and cut.segments["close"] == whole.segments["close"]
    assert cut.until_edge() is cut
    with pytest.raises(CliffscopeError, match="never closed"):
        builder.build(Rollout("b", "How?", "So I", None)).until_edge()
