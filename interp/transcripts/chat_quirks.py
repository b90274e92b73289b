"""What a chat template does about thinking, told by rendering it around markers."""

import re
from dataclasses import dataclass

from interp.errors import CliffscopeError
from interp.transcripts.chat_template import SYSTEM_MARK, USER_MARK, ChatTemplate
from interp.transcripts.thinking import ThinkingFormat

THINKING_MARK = "cliffscopethinkingtext"
RESPONSE_MARK = "cliffscoperesponsetext"

# Tags that models use, the likelier first; what else there is comes from the template or from the user.
KNOWN_TAGS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    (
        "<|channel|>analysis<|message|>",
        "<|end|><|start|>assistant<|channel|>final<|message|>",
    ),
)


@dataclass(frozen=True)
class Opening:
    """How the generation prompt leaves the thinking.

    Attributes:
        opened: It ends with the opening tag.
        finished: It opens and closes the thinking (thinking switched off).
        rest: What of `ThinkingFormat.open` is still to be written before the thinking.
    """

    opened: bool
    finished: bool
    rest: str


def find_opening(after: str, thinking: ThinkingFormat) -> Opening:
    """How what the template wrote after the user's text leaves the thinking."""
    opens, closes = after.rfind(thinking.open_tag), after.rfind(thinking.close_tag)
    if closes > opens:
        return Opening(opened=False, finished=True, rest="")
    if opens < 0 or after.rstrip() != after[: opens + len(thinking.open_tag)]:
        return Opening(opened=False, finished=False, rest=thinking.open)
    written, canonical = after[opens:], thinking.open.lstrip()
    rest = canonical[len(written) :] if canonical.startswith(written) else ""
    return Opening(opened=True, finished=False, rest=rest)


def find_thinking(template: ChatTemplate) -> ThinkingFormat | None:
    """The tags of a template with the exact white space, as far as it tells; `None` if it tells nothing.

    The template is asked, in this order, to write an assistant turn with thinking; a generation prompt with thinking
    switched on, which may end with the opening tag; and one with thinking switched off, which may hold an empty
    block. What none of these shows gets the line breaks of `ThinkingFormat`.
    """
    if not template.source:
        return None
    rendered = _rendered_tags(template, template.frame()[1])
    if rendered is not None:
        return rendered
    on, off = (template.switched(flag) for flag in (True, False))
    for open_tag, close_tag in KNOWN_TAGS:
        if open_tag not in template.source and close_tag not in template.source:
            continue
        opening, closing = f"{open_tag}\n", f"\n{close_tag}\n\n"
        if on.rstrip().endswith(open_tag):
            opening = on[on.rindex(open_tag) :]
        if off.rstrip().endswith(close_tag):
            head, _, space = off.rpartition(close_tag)
            block = head[len(head.rstrip()) :] if head.rstrip().endswith(open_tag) else ""
            closing = block.removeprefix(opening.removeprefix(open_tag)) + close_tag + space
        return ThinkingFormat(opening, closing)
    return None


def _rendered_tags(template: ChatTemplate, after: str) -> ThinkingFormat | None:
    """The tags between header, thinking and response, from a template that writes the last turn's thinking."""
    user = {"role": "user", "content": USER_MARK}
    # The field has a different name in each family.
    fields = dict.fromkeys(("reasoning_content", "reasoning", "thinking"), THINKING_MARK)
    try:
        text = template.render([user, {"role": "assistant", "content": RESPONSE_MARK, **fields}], generation=False)
    except CliffscopeError:
        return None
    parts = re.fullmatch(f".*?{USER_MARK}(.*?){THINKING_MARK}(.*?){RESPONSE_MARK}.*", text, re.DOTALL)
    if parts is None:
        return None
    header, close = parts.groups()
    if header == after:  # the generation prompt ends with the opening tag
        tags = [open_tag for open_tag, _ in KNOWN_TAGS if after.rstrip().endswith(open_tag)]
        opening = after[after.rindex(tags[0]) :] if tags else ""
    else:
        opening = header.removeprefix(after) if header.startswith(after) else ""
    if not opening.strip() or not close.strip() or opening.strip() == close.strip():
        return None
    return ThinkingFormat(opening, close)


def find_quirks(template: ChatTemplate, thinking: ThinkingFormat, told: bool) -> tuple[str, ...]:
    """Sentences on what a user of this tokenizer should know.

    Args:
        template: With the options in use.
        thinking: The tags in use.
        told: Whether the tags come from the template or the user, as opposed to the default.
    """
    bos = bos_quirk(template)
    if not template.source:
        quirks = ["It has no chat template: the prompt's text is the whole prompt, without a system prompt."]
        return (*quirks, bos) if bos else tuple(quirks)
    quirks = [bos] if bos else []
    opening = find_opening(template.frame()[1], thinking)
    if opening.opened:
        quirks.append(f"Its generation prompt opens the thinking itself ({thinking.open_tag}).")
    elif opening.finished:
        quirks.append(
            "Its generation prompt opens and closes the thinking itself (thinking switched off): no edge to read."
        )
    elif told:
        quirks.append(f"The model writes {thinking.open_tag} itself.")
    else:
        quirks.append(
            f"Its chat template shows no thinking tags: {thinking.open_tag} and {thinking.close_tag} are assumed."
        )
    if template.switched(True) != template.switched(False):
        quirks.append("Its chat template has a switch for thinking (enable_thinking).")
    if told and _strips_past_thinking(template, thinking):
        quirks.append("Its chat template drops the thinking of past turns.")
    quirks.append(_system_quirk(template))
    if template.prompt(" \nx\n ").instruction != _span_of(template, " \nx\n "):
        quirks.append("Its chat template trims white space around the user's text.")
    return tuple(quirk for quirk in quirks if quirk)


def tokenizer_adds_bos(template: ChatTemplate) -> bool:
    """Whether the tokenizer puts a BOS before plain text by itself."""
    tokenizer = template.tokenizer
    if tokenizer.bos_token_id is None:
        return False
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return bool(tokenizer("a", add_special_tokens=True)["input_ids"][0] == tokenizer.bos_token_id)
    # The tokenizer's own call would reset its truncation and padding.
    return bool(backend.encode("a", add_special_tokens=True).ids[:1] == [tokenizer.bos_token_id])


def template_writes_bos(template: ChatTemplate) -> bool:
    """Whether the template writes the BOS into the text."""
    bos = template.tokenizer.bos_token
    return bool(bos and template.source and str(bos) in template.frame()[0])


def bos_quirk(template: ChatTemplate) -> str:
    """A sentence on the BOS where template and tokenizer do not agree; else `""`."""
    adds, writes = tokenizer_adds_bos(template), template_writes_bos(template)
    if adds and writes:
        return "Its chat template writes a BOS and its tokenizer adds one again: only the template's is kept."
    if adds and template.source:
        return "Its chat template writes no BOS but its tokenizer adds one: it is added once."
    return ""


def _span_of(template: ChatTemplate, prompt: str) -> tuple[int, int]:
    start = len(template.frame()[0])
    return start, start + len(prompt)


def _strips_past_thinking(template: ChatTemplate, thinking: ThinkingFormat) -> bool:
    user = {"role": "user", "content": USER_MARK}
    content = thinking.open + THINKING_MARK + thinking.close + RESPONSE_MARK
    try:
        text = template.render([user, {"role": "assistant", "content": content}, user])
    except CliffscopeError:
        return False
    return RESPONSE_MARK in text and THINKING_MARK not in text


def _system_quirk(template: ChatTemplate) -> str:
    _, _, (start, stop) = template.frame()
    if stop > start:
        return "Its chat template writes a default system prompt."
    try:
        before, _, (start, _) = template.frame(SYSTEM_MARK)
    except CliffscopeError:
        return "Its chat template has no system role."
    plain = template.frame()[0]
    # The same text before the system prompt as before the user's: it stands in the user's turn.
    return "Its chat template puts the system prompt into the user's turn." if before[:start] == plain else ""
