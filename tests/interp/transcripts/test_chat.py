"""Chat formats: rendering, tags found in templates, quirks, and cutting generated text."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from interp.errors import CliffscopeError
from interp.rollouts import Rollout
from interp.transcripts.chat import ChatFormat, ThinkingFormat
from tests.interp.transcripts.chat_tokenizers import KINDS, STYLES, make

TAGS = ["<think>", "</think>", "<think>\n", "\n</think>\n\n", "\n", " ", "</thi", "Sure", "I should"]
texts = st.lists(st.one_of(st.sampled_from(TAGS), st.text(max_size=6)), max_size=8).map("".join)
plain = texts.filter(lambda text: "</think>" not in text and not text.lstrip().startswith("<think>"))


def _format(style: str, **options: object) -> ChatFormat:
    return ChatFormat.of(make(style, "byte_level"), **options)


def _templated(jinja: str | None, **options: object) -> ChatFormat:
    """The format of a tokenizer with another template."""
    base = make("none", "byte_level")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=base.backend_tokenizer, bos_token="<s>")
    tokenizer.chat_template = jinja
    return ChatFormat.of(tokenizer, **options)


# --- rendering ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", list(STYLES))
@settings(max_examples=60, deadline=None)
@given(prompt=texts, thinking=texts, response=texts)
def test_segments_are_where_the_layout_says(style: str, prompt: str, thinking: str, response: str) -> None:
    thinking = thinking.strip("\r\n") if thinking.strip() else ""
    response = response.lstrip("\r\n")
    whole = _format(style).rollout_text(Rollout("r", prompt, thinking, response))
    expected: list[tuple[str, str]] = []
    for segment, piece in STYLES[style].pieces(prompt, thinking, response):
        if piece and expected and expected[-1][0] == segment == "template":
            expected[-1] = segment, expected[-1][1] + piece
        elif piece:
            expected.append((segment, piece))
    found: list[tuple[str, str]] = []
    for segment, start, stop in whole.spans:
        if found and found[-1][0] == segment == "template":
            found[-1] = segment, found[-1][1] + whole.text[start:stop]
        else:
            found.append((segment, whole.text[start:stop]))
    assert found == expected
    assert "".join(piece for _, piece in found) == whole.text
    assert whole.text[: whole.prompt_stop] == _format(style).prompt_text(prompt)


@pytest.mark.parametrize("style", [style for style, spec in STYLES.items() if spec.system])
@settings(max_examples=40, deadline=None)
@given(prompt=texts, system=texts.filter(str.strip))
def test_system_prompt_is_found_even_if_it_repeats_the_prompt(style: str, prompt: str, system: str) -> None:
    spec = STYLES[style]
    for text in (system, prompt + system, system + prompt):
        rendered = _format(style).render(prompt, text)
        shown, asked = (text.strip(), prompt.strip()) if spec.trims else (text, prompt)
        assert rendered.text == spec.system.format("\0").replace("\0", shown) + asked + spec.tail + spec.opened
        assert rendered.text[slice(*rendered.system)] == shown
        assert rendered.instruction[0] == len(spec.system) - 2 + len(shown)
        assert rendered.text[slice(*rendered.instruction)] == asked


def test_default_system_prompt_is_system() -> None:
    rendered = _format("default_system").render("Be brief.")
    assert rendered.text[slice(*rendered.system)] == rendered.text[slice(*rendered.instruction)] == "Be brief."
    assert rendered.system[1] < rendered.instruction[0]


def test_system_prompt_without_a_place_for_it() -> None:
    with pytest.raises(CliffscopeError, match=r"cannot be rendered .*System role not supported"):
        _format("gemma").prompt_text("How", system="Be brief.")
    with pytest.raises(CliffscopeError, match="no chat template, so no place for a system prompt"):
        _format("none").prompt_text("How", system="Be brief.")
    ignoring = "{% for m in messages %}{% if m.role == 'user' %}[{{ m.content }}]{% endif %}{% endfor %}"
    with pytest.raises(CliffscopeError, match="ignores a system prompt"):
        _templated(ignoring).prompt_text("How", system="Be brief.")
    assert _templated(ignoring).prompt_text("How") == "[How]"


def test_templates_that_lose_or_repeat_the_prompt() -> None:
    for jinja, count in (("hello", 0), ("{{ messages[0].content }} {{ messages[0].content }}", 2)):
        with pytest.raises(CliffscopeError, match=f"writes the user's message {count} times"):
            _templated(jinja).prompt_text("How")
    with pytest.raises(CliffscopeError, match="changes the user's text"):
        _templated("<{{ messages[0].content | replace('H', 'J') }}{{ messages[0].content | length }}>").prompt_text(
            "Ho"
        )


def test_templates_that_look_at_the_prompt() -> None:
    jinja = "<u>{{ messages[0].content }}{{ '' if messages[0].content.endswith('/x') else '/x' }}</u>"
    for prompt, text in (("How", "<u>How/x</u>"), ("How/x", "<u>How/x</u>")):
        rendered = _templated(jinja).render(prompt)
        assert rendered.text == text
        assert rendered.text[slice(*rendered.instruction)] == prompt


def test_broken_template_is_a_one_line_error() -> None:
    with pytest.raises(CliffscopeError, match="cannot be rendered") as error:
        _templated("{% for m in messages %}{{ m.content }").prompt_text("How")
    assert "\n" not in str(error.value)


def test_errors_name_the_rollout() -> None:
    with pytest.raises(CliffscopeError, match=r"rollout 'r9': .*System role"):
        _format("gemma").rollout_text(Rollout("r9", "How", "Hm.", "Sure"), system="Be brief.")


def test_no_template() -> None:
    chat = _format("none")
    assert not chat.has_template
    assert chat.prompt_text("How do I") == "How do I"
    with pytest.raises(CliffscopeError, match=r"no chat template: set tokenizer\.chat_template"):
        chat.require_template()
    _format("qwen3").require_template()


def test_template_options_are_given_on() -> None:
    chat = _templated("[{{ messages[0].content }}|{{ effort }}]", options={"effort": "high"})
    assert chat.prompt_text("How") == "[How|high]"


# --- tags and quirks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", list(STYLES))
def test_tags_are_found(style: str) -> None:
    assert _format(style).thinking == ThinkingFormat(STYLES[style].open, STYLES[style].close)


def _tail(text: str) -> str:
    return "{% if add_generation_prompt %}A:{{ '" + text + "' }}{% endif %}"


TURNS = "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}"


@pytest.mark.parametrize(
    ("jinja", "thinking", "opened", "rest"),
    [
        (TURNS + _tail("<think>"), ThinkingFormat("<think>"), True, ""),
        (TURNS + _tail(r"<thought>\n\n"), ThinkingFormat("<thought>\n\n", "\n</thought>\n\n"), True, ""),
        (TURNS + _tail("[THINK]"), ThinkingFormat("[THINK]", "\n[/THINK]\n\n"), True, ""),
        (TURNS.replace("m.content", "m.content.split('</reasoning>')[-1]") + _tail(""),
         ThinkingFormat("<reasoning>\n", "\n</reasoning>\n\n"), False, "<reasoning>\n"),
        ("{% for m in messages %}{{ m.role[0] | upper }}:"
         "{{ '<mull> ' + m.reasoning_content + ' </mull>\n' if m.reasoning_content else '' }}{{ m.content }};"
         "{% endfor %}"
         + _tail(""), ThinkingFormat("<mull> ", " </mull>\n"), False, "<mull> "),
        (TURNS + _tail(""), ThinkingFormat(), False, "<think>\n"),
    ],
)  # fmt: skip
def test_tags_and_white_space_come_from_the_template(
    jinja: str, thinking: ThinkingFormat, opened: bool, rest: str
) -> None:
    chat = _templated(jinja)
    assert chat.thinking == thinking
    assert (chat.opening.opened, chat.opening.rest) == (opened, rest)


BARE = TURNS + (
    "{% if add_generation_prompt %}A:{{ '<think>' if thinking is defined and thinking else '</think>' }}{% endif %}"
)
IN_SYSTEM = TURNS + "{% if add_generation_prompt %}A:{{ '<think></think>' if '/no' in messages[0].content }}{% endif %}"


def test_tags_shown_by_the_switch_only() -> None:
    chat = _templated(BARE, enable_thinking=True)  # in this family the variable is called `thinking`
    assert chat.thinking == ThinkingFormat("<think>", "</think>")
    assert chat.rollout_text(Rollout("r", "How", "Hm.", "Sure")).text == "user:How;A:<think>Hm.</think>Sure"
    chat = _templated(BARE)
    assert chat.thinking == ThinkingFormat("<think>", "</think>")
    assert chat.rollout_text(Rollout("r", "How", None, "Sure")).text == "user:How;A:</think>Sure"
    block = TURNS + "{% if add_generation_prompt %}A:{{ '<think>\n\n\n</think>\n' if not enable_thinking }}{% endif %}"
    assert _templated(block, enable_thinking=True).thinking == ThinkingFormat("<think>\n", "\n\n</think>\n")


def test_switch_in_the_system_prompt() -> None:
    chat, rollout = _templated(IN_SYSTEM), Rollout("r", "How", None, "Sure")
    assert chat.rollout_text(rollout, system="Be /no").text == "system:Be /no;user:How;A:<think></think>Sure"
    with pytest.raises(CliffscopeError, match="switches thinking off"):
        chat.rollout_text(Rollout("r", "How", "Hm.", "Sure"), system="Be /no")
    assert chat.rollout_text(Rollout("r", "How", "Hm.", "Sure"), system="Be").thinking_state == "closed"


def test_given_tags_win_and_what_the_template_opened_is_not_written_twice() -> None:
    chat = _templated(TURNS + _tail("<think>"), thinking=ThinkingFormat("<think>\n", "</think>"))
    text = chat.rollout_text(Rollout("r", "How", "Hm.", "Sure")).text
    assert text == "user:How;A:<think>\nHm.</think>Sure"
    chat = _templated(TURNS + _tail(r"<think>\n"), thinking=ThinkingFormat("<think>", "</think>"))
    assert chat.rollout_text(Rollout("r", "How", "Hm.", "Sure")).text == "user:How;A:<think>\nHm.</think>Sure"
    other = _templated(TURNS + _tail("<think>"), thinking=ThinkingFormat("<plan>", "</plan>"))
    assert other.rollout_text(Rollout("r", "How", "Hm.", "Sure")).text == "user:How;A:<think><plan>Hm.</plan>Sure"


@pytest.mark.parametrize(("opening", "closing"), [("", "</think>"), ("<think>", "\n"), ("#", "#"), (" # ", "#\n")])
def test_bad_tags(opening: str, closing: str) -> None:
    with pytest.raises(CliffscopeError, match="thinking tags"):
        ThinkingFormat(opening, closing)


QUIRKS = {
    "BOS and its tokenizer adds one again": {"r1", "gemma", "llama3"},
    "no BOS but its tokenizer adds one": {"default_system"},
    "opens the thinking itself": {"r1"},
    "The model writes": {"qwen3", "channels"},
    "are assumed": {"gemma", "llama3", "default_system", "merged_system"},
    "has a switch for thinking": {"qwen3"},
    "drops the thinking of past turns": {"r1", "qwen3"},
    "no system role": {"gemma"},
    "into the user's turn": {"merged_system"},
    "default system prompt": {"default_system"},
    "trims white space": {"gemma", "llama3"},
    "no chat template": {"none"},
}


@pytest.mark.parametrize("sentence", list(QUIRKS))
def test_quirks(sentence: str) -> None:
    assert {style for style in STYLES if any(sentence in quirk for quirk in _format(style).quirks)} == QUIRKS[sentence]


def test_quirk_of_thinking_switched_off() -> None:
    assert any("thinking switched off" in quirk for quirk in _format("qwen3", enable_thinking=False).quirks)
    assert not any("thinking switched off" in quirk for quirk in _format("qwen3", enable_thinking=True).quirks)


# --- splitting -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("generated", "model_opens", "template_opens"),
    [
        ("<think>\nHm.\n</think>\n\nSure", ("Hm.", "Sure"), ("Hm.", "Sure")),
        ("Hm.\n</think>\n\nSure", ("Hm.", "Sure"), ("Hm.", "Sure")),
        ("\n\n<think>Hm.</think>Sure\n", ("Hm.", "Sure\n"), ("Hm.", "Sure\n")),
        ("<think> Hm.\n \n</think> \n Sure", (" Hm.\n ", " \n Sure"), (" Hm.\n ", " \n Sure")),
        ("<think>\n\n</think>\n\nSure", ("", "Sure"), ("", "Sure")),
        ("<think> \n </think>Sure", ("", "Sure"), ("", "Sure")),
        ("</think>Sure", ("", "Sure"), ("", "Sure")),
        ("<think>\nHm. I", ("Hm. I", None), ("Hm. I", None)),
        ("<think>\nHm.\n", ("Hm.\n", None), ("Hm.\n", None)),
        ("Sure", (None, "Sure"), ("Sure", None)),
        ("\n\nSure", (None, "Sure"), ("Sure", None)),
        ("Sure, the tag <think> is", (None, "Sure, the tag <think> is"), ("Sure, the tag <think> is", None)),
        ("Hm.</think>Use </think> to close", ("Hm.", "Use </think> to close"), ("Hm.", "Use </think> to close")),
        ("", (None, ""), ("", None)),
        ("<think>\nHm.\n</think>\n\n", ("Hm.", ""), ("Hm.", "")),
    ],
)
def test_split(
    generated: str, model_opens: tuple[str | None, str | None], template_opens: tuple[str | None, str | None]
) -> None:
    assert _format("qwen3").split(generated) == model_opens
    assert _format("r1").split(generated) == template_opens


def test_split_with_thinking_switched_off() -> None:
    chat = _format("qwen3", enable_thinking=False)
    assert chat.split("\nSure, </think> closes it") == (None, "Sure, </think> closes it")
    assert chat.split("<think>\nHm.\n</think>\n\nSure") == ("Hm.", "Sure")  # not judged as the response


@pytest.mark.parametrize("style", ["qwen3", "r1", "none"])
@given(thinking=plain, response=texts, closed=st.booleans())
def test_canonical_text_comes_back(style: str, thinking: str, response: str, closed: bool) -> None:
    chat = _format(style)
    thinking = thinking.strip("\r\n") if thinking.strip() else ""
    rollout = Rollout("r", "How", thinking, response.lstrip("\r\n") if closed else None)
    whole = chat.rollout_text(rollout)
    assert chat.split(whole.text[whole.prompt_stop :]) == (rollout.thinking, rollout.response)


@pytest.mark.parametrize("style", ["qwen3", "r1", "none"])
@settings(max_examples=300)
@given(generated=texts)
def test_splitting_what_was_built_from_a_split_changes_nothing(style: str, generated: str) -> None:
    chat = _format(style)
    parts = chat.split(generated)
    whole = chat.rollout_text(Rollout("r", "How", *parts))
    again = whole.text[whole.prompt_stop :]
    assert chat.split(again) == parts
    assert chat.rollout_text(Rollout("r", "How", *chat.split(again))) == whole
    # Nothing but tags and line breaks is taken away.
    left = "".join(part for part in parts if part)
    kept = generated.replace("<think>", "").replace("</think>", "")
    assert "".join(left.replace("<think>", "").replace("</think>", "").split()) == "".join(kept.split())


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "dropping"])
def test_decode_keeps_tags_that_are_special_tokens(kind: str) -> None:
    tokenizer = make("r1", kind)
    chat = ChatFormat.of(tokenizer)
    ids = tokenizer("I should help.\n</think>\n\nSure<|end|><s><s>", add_special_tokens=False)["input_ids"]
    if kind in ("byte_level", "wide"):
        assert "</think>" not in tokenizer.decode(ids, skip_special_tokens=True)  # the trap
        assert chat.decode(ids) == "I should help.\n</think>\n\nSure"
    assert "</think>" in chat.decode(ids) and "<" not in chat.decode(ids).replace("</think>", "")
    thinking, response = chat.split(chat.decode(ids))
    assert "help." in (thinking or "") and (response or "").strip() == "Sure"
    channels = ChatFormat.of(make("channels", kind))
    text = "I should help." + channels.thinking.close + "Sure"
    ids = make("channels", kind)(text + "<|return|>", add_special_tokens=False)["input_ids"]
    assert channels.decode(ids).endswith("Sure") and "<|channel|>" in channels.decode(ids)
    assert chat.decode([]) == ""


def test_decode_goes_on_after_an_unknown_token() -> None:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=make("r1", "unigram").backend_tokenizer, unk_token="<unk>", eos_token="<|end|>"
    )
    unknown, end = tokenizer.unk_token_id, tokenizer.eos_token_id
    ids = tokenizer("Sure", add_special_tokens=False)["input_ids"]
    assert ChatFormat.of(tokenizer).decode([*ids, unknown, *ids, end, *ids]).count("Sure") == 2
