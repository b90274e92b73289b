r"""Training examples, and their files in the three forms that trainers read.

    messages  {"messages": [{"role": "user", …}, {"role": "assistant", …}]}    TRL, axolotl (chat_template)
    alpaca    {"instruction": …, "input": "", "output": …}                     LLaMA-Factory
    sharegpt  {"conversations": [{"from": "human", …}, {"from": "gpt", …}]}    LLaMA-Factory

In each the thinking stands in the assistant's text between the model's own tags: `<think>\n…\n</think>\n\nanswer`. Line
breaks beside a tag belong to the tag, as everywhere here, so they are the canonical ones in a file.

Some chat templates delete the thinking of an assistant's turn when they render it: those of the R1 distillations
always, Qwen3's in all turns but the last. A trainer that renders `messages` with such a template would train on an
answer without thinking, which is not what the model does; `keeps_thinking` tells. Then train with `cliffscope repair`,
which goes by the transcript and not by the template, or give the trainer a template that keeps it.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from interp.errors import CliffscopeError
from interp.files import read_jsonl, write_atomically
from interp.rollouts import Rollout
from interp.rollouts.rollout import check_unicode

if TYPE_CHECKING:
    from interp.transcripts.chat import ChatFormat

Format = Literal["messages", "alpaca", "sharegpt"]
FORMATS: tuple[Format, ...] = get_args(Format)

_NAMES = {"user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant", "system": "system"}


@dataclass(frozen=True)
class TrainingExample:
    """What to train on: one prompt, and the thinking and response to learn.

    Attributes:
        id: Unique in its file.
        prompt: The user's instruction, without any template.
        thinking: The text between the thinking tags; `""` if they are closed at once, `None` without any.
        response: The text after the thinking.
        harmful: Whether the prompt asks for something harmful; `None` if unknown.
        category: A label of the prompt's kind.
    """

    id: str
    prompt: str
    thinking: str | None
    response: str
    harmful: bool | None = None
    category: str | None = None

    def as_rollout(self) -> Rollout:
        """The example as if a model had written it, for transcripts."""
        return Rollout(self.id, self.prompt, self.thinking, self.response, self.harmful, self.category)


@dataclass(frozen=True)
class SelectedExample:
    """A training example and why it was chosen.

    Attributes:
        example: What to train on.
        rank: From 1, the first choice.
        cliff, plateau, edge: Of the model's own rollout.
        reason: Why it was chosen, in a few words.
    """

    example: TrainingExample
    rank: int
    cliff: float
    plateau: float
    edge: float
    reason: str


def canonical(example: TrainingExample, chat: "ChatFormat") -> TrainingExample:
    """The example without the line breaks that belong to the thinking tags: how it comes back from a file."""
    thinking = None if example.thinking is None else chat.thinking.trim_thinking(example.thinking)
    return replace(example, thinking=thinking, response=chat.thinking.trim_response(example.response))


def assistant_text(example: TrainingExample, chat: "ChatFormat") -> str:
    """Thinking in the model's tags, and the response.

    Raises:
        CliffscopeError: If it could not be read back: the thinking holds the closing tag, or a response without
            thinking holds a tag.
    """
    example = canonical(example, chat)
    tags = chat.thinking
    text = example.response
    if example.thinking is not None:
        text = tags.open.lstrip() + example.thinking + tags.close + example.response
    if tags.split(text) != (example.thinking, example.response):
        raise CliffscopeError(
            f"example {example.id!r}: the tags {tags.open_tag} and {tags.close_tag} in its text would be taken for "
            "those around the thinking; take them out."
        )
    return text


def write_examples(
    path: str | os.PathLike[str], selected: Iterable[SelectedExample], format: Format, chat: "ChatFormat"
) -> None:
    """Writes one example a line, whole or not at all.

    Beside the form's own keys a line has id, rank, cliff, plateau, edge, reason, harmful and category.

    Args:
        path: The JSON Lines file.
        selected: In the order of the file; taken one by one.
        format: `messages`, `alpaca` or `sharegpt`.
        chat: Has the thinking tags.

    Raises:
        CliffscopeError: If the format is unknown, an example cannot be read back, or the file cannot be written.
    """
    check_format(format)
    write_atomically(path, lambda partial: dump_examples(partial, selected, format, chat))


def dump_examples(path: Path, selected: Iterable[SelectedExample], format: Format, chat: "ChatFormat") -> None:
    """As `write_examples`, straight into the file: for those who write several files together."""
    form = _FORMS[format]
    with path.open("w", encoding="utf-8") as file:
        for item in selected:
            row = {"id": item.example.id, **form(item.example.prompt, assistant_text(item.example, chat))}
            row |= {"rank": item.rank, "cliff": item.cliff, "plateau": item.plateau, "edge": item.edge}
            row |= {"reason": item.reason, "harmful": item.example.harmful, "category": item.example.category}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def check_format(format: str) -> None:
    """Raises `CliffscopeError` if there is no such form of a file of examples."""
    if format not in FORMATS:
        raise CliffscopeError(f"format {format!r}: expected one of {', '.join(FORMATS)}.")


def read_examples(path: str | os.PathLike[str], chat: "ChatFormat") -> list[TrainingExample]:
    """Reads training examples in any of the three forms, told by their keys.

    A line without an id gets `line-N`. `harmful` and `category` are read where they are there, other keys passed over.

    Args:
        path: A JSON Lines file, of `write_examples` or by other hands.
        chat: Has the thinking tags.

    Raises:
        CliffscopeError: Naming the file and the line: if it is none of the forms, is not one question and one answer,
            or an id occurs twice; or if the file is missing or empty.
    """
    examples: list[TrainingExample] = []
    first_line: dict[str, int] = {}
    for number, row in read_jsonl(path):
        where = f"{os.fspath(path)}, line {number}"
        example = _from_row(row, where, number, chat)
        if example.id in first_line:
            raise CliffscopeError(
                f"{where}: the id {example.id!r} is already on line {first_line[example.id]}; ids must differ."
            )
        first_line[example.id] = number
        examples.append(example)
    if not examples:
        raise CliffscopeError(f"{os.fspath(path)}: no examples; make some with `cliffscope select`.")
    return examples


def keeps_thinking(chat: "ChatFormat") -> bool:
    """Whether the chat template writes the thinking that stands in the text of the last assistant turn."""
    mark = "cliffscopethinkingtext"
    text = f"{chat.thinking.open.lstrip()}{mark}{chat.thinking.close}answer"
    turns = [{"role": "user", "content": "question"}, {"role": "assistant", "content": text}]
    return mark in chat.template.render(turns, generation=False)


def _messages(prompt: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]}


def _alpaca(prompt: str, answer: str) -> dict[str, Any]:
    return {"instruction": prompt, "input": "", "output": answer}


def _sharegpt(prompt: str, answer: str) -> dict[str, Any]:
    return {"conversations": [{"from": "human", "value": prompt}, {"from": "gpt", "value": answer}]}


_FORMS: Mapping[Format, Callable[[str, str], dict[str, Any]]] = {
    "messages": _messages,
    "alpaca": _alpaca,
    "sharegpt": _sharegpt,
}


def _from_row(row: Mapping[str, Any], where: str, number: int, chat: "ChatFormat") -> TrainingExample:
    if "messages" in row:
        prompt, answer = _turns(row["messages"], "role", "content", where)
    elif "conversations" in row:
        prompt, answer = _turns(row["conversations"], "from", "value", where)
    elif "instruction" in row and "output" in row:
        more = _text(row.get("input") or "", "input", where)
        prompt = _text(row["instruction"], "instruction", where) + (f"\n{more}" if more else "")
        answer = _text(row["output"], "output", where)
    else:
        raise CliffscopeError(
            f"{where}: no training example: expected 'messages', 'conversations', or 'instruction' and 'output' "
            f"(found: {', '.join(map(repr, row)) or 'nothing'})."
        )
    harmful, category = row.get("harmful"), row.get("category")
    if harmful is not None and not isinstance(harmful, bool):
        raise CliffscopeError(f"{where}: 'harmful' must be true, false or null, found {harmful!r}.")
    thinking, response = chat.thinking.split(answer)
    if response is None:
        raise CliffscopeError(f"{where}: the thinking is never closed by {chat.thinking.close_tag}: nothing to answer.")
    return TrainingExample(
        id=f"line-{number}" if row.get("id") is None else str(row["id"]),
        prompt=prompt,
        thinking=thinking,
        response=response,
        harmful=harmful,
        category=None if category is None else str(category),
    )


def _turns(turns: Any, role: str, content: str, where: str) -> tuple[str, str]:
    """Prompt and answer of a conversation of two turns."""
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise CliffscopeError(f"{where}: expected a list of turns, each with {role!r} and {content!r}.")
    names = [_NAMES.get(str(turn.get(role)), repr(turn.get(role))) for turn in turns]
    if names != ["user", "assistant"]:
        raise CliffscopeError(
            f"{where}: expected one turn of the user and one of the assistant, found {', '.join(names) or 'none'}."
        )
    if unknown := [key for turn in turns for key, value in turn.items() if key not in (role, content) and value]:
        # Thinking in a field of its own would be lost without a word.
        raise CliffscopeError(
            f"{where}: unknown key {unknown[0]!r} in a turn; thinking belongs into {content!r}, between the tags."
        )
    prompt, answer = (_text(turn.get(content), content, where) for turn in turns)
    return prompt, answer


def _text(value: Any, key: str, where: str) -> str:
    if not isinstance(value, str):
        raise CliffscopeError(f"{where}: {key!r} must be text, found {type(value).__name__}.")
    check_unicode(key, value, where)
    return value
