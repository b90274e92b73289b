"""Named token positions: `inst`, `post_inst`, `think:0.25`, `close:-1`, `response:0`, or a token index."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from interp.errors import CliffscopeError

if TYPE_CHECKING:
    from interp.transcripts import Transcript

SEGMENTS = ("system", "instruction", "template", "thinking", "close", "response")
EDGE = "close:-1"

GOOD_FORMS = (
    "inst, post_inst, think:F with F from 0 to 1, "
    f"SEGMENT:I with a whole number I and one of the segments {', '.join(SEGMENTS)}, "
    f"or a token index (the edge is {EDGE})"
)

_INDEX = re.compile(r"[+-]?[0-9]+")
_FRACTION = re.compile(r"[0-9]*\.?[0-9]+(e-?[0-9]+)?|[0-9]+\.")


def check_position(position: str | int) -> None:
    """Raises `CliffscopeError` if this is no position in any rollout; needs no model and no rollout."""
    _parse(position)


def locate(transcript: "Transcript", position: str | int) -> int:
    """The token index of a position, from 0.

    Args:
        transcript: Where to look.
        position: `inst`: the last token of the instruction. `post_inst`: the last token of the prompt with its template
            and generation prompt. `think:F`: token `round(F·(n − 1))` of the n thinking tokens (ties to even).
            `SEGMENT:I`: token I of a segment, from its end if negative. An index, also as text, into all tokens,
            from the end if negative.

    Raises:
        CliffscopeError: If the name is none of these, or the rollout has no such token; then with its id and the
            reason.
    """
    segment, number = _parse(position)
    if segment == "index":
        tokens: Sequence[int] = range(len(transcript))
        number = int(number)
    elif segment == "post_inst":
        tokens = range(transcript.prompt_length)
    else:
        tokens = transcript.indices(segment)
        if isinstance(number, float):
            number = round(number * (len(tokens) - 1)) if tokens else 0
    if not -len(tokens) <= number < len(tokens):
        raise CliffscopeError(
            f"rollout {transcript.id!r}: no position {position!r}: {_reason(transcript, segment, len(tokens))}."
        )
    return tokens[int(number)]


def _parse(position: str | int) -> tuple[str, int | float]:
    """`(segment, index)`, `(segment, fraction as float)`, `("post_inst", -1)`, or `("index", index)`."""
    if isinstance(position, int) and not isinstance(position, bool):
        return "index", position
    name = position.strip() if isinstance(position, str) else ""
    if name == "inst":
        return "instruction", -1
    if name == "post_inst":
        return "post_inst", -1
    if _INDEX.fullmatch(name):
        return "index", int(name)
    segment, _, number = name.partition(":")
    if segment == "think" and _FRACTION.fullmatch(number) and 0 <= float(number) <= 1:
        return "thinking", float(number)
    if segment in SEGMENTS and _INDEX.fullmatch(number):
        return segment, int(number)
    raise CliffscopeError(f"position {position!r}: not a position; use {GOOD_FORMS}.")


def _reason(transcript: "Transcript", segment: str, n_tokens: int) -> str:
    """Why a transcript lacks a token of a segment, and what to do."""
    if segment == "index":
        return f"it has {n_tokens} tokens"
    if n_tokens:
        return f"its {segment} has {n_tokens} token{'s' if n_tokens > 1 else ''}"
    if segment in ("thinking", "close", "response") and transcript.is_prompt:
        return "it is a prompt that nothing follows; read post_inst"
    state = transcript.thinking_state
    if state == "absent" and segment in ("thinking", "close"):
        return "it has no thinking; read post_inst, from which its answer is predicted"
    if state == "unclosed" and segment in ("close", "response"):
        return "its thinking was never closed; leave it out, or generate it again with more tokens"
    if state == "empty" and segment == "thinking":
        return f"its thinking is empty; read {EDGE}, or leave it out"
    if segment == "instruction":
        return "no token ends in its instruction, which is empty or merged with the template"
    return f"no token ends in its {segment}"
