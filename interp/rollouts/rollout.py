"""Rollouts: one prompt with the thinking and the response that a model gave, and their JSON Lines files."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

from interp.errors import CliffscopeError
from interp.files import read_jsonl, write_jsonl

GUARD = "cliffscope.guard "
"""How `Rollout.model` begins where a guard gave the rollout, and no model; the guard's digest follows."""


@dataclass(frozen=True)
class Rollout:
    """One prompt with the thinking and the response that a model gave.

    Attributes:
        id: Unique in its file.
        prompt: The user's instruction, without any template.
        thinking: The text between the thinking tags, without them and without the line breaks that belong
            to them; `""` if the model closed the tags at once; `None` if it wrote no thinking at all.
        response: The text after the thinking; `None` if the thinking was never closed (the token limit came
            first), so that there is no response to judge.
        harmful: Whether the prompt asks for something harmful; `None` if unknown.
        category: A label of the prompt's kind, for held-out splits; `None` if there is none.
        refused: Whether the response refuses; `None` if not judged or if there is no response.
        source: Where the prompt came from.
        model: What generated the rollout.
    """

    id: str
    prompt: str
    thinking: str | None
    response: str | None
    harmful: bool | None = None
    category: str | None = None
    refused: bool | None = None
    source: str | None = None
    model: str | None = None

    @property
    def outcome(self) -> str:
        """`complied`, `refused` (both of harmful prompts), `benign`, `benign_refused` or `unknown`."""
        if self.harmful is None or self.refused is None:
            return "unknown"
        if self.harmful:
            return "refused" if self.refused else "complied"
        return "benign_refused" if self.refused else "benign"

    @property
    def by_guard(self) -> bool:
        """Whether a guard stopped the prompt and no model answered it: nothing is to be fitted on what it wrote."""
        return (self.model or "").startswith(GUARD)


# Keys that a line must have, in the order of the file, and every key it may have.
_KEYS = tuple(field.name for field in fields(Rollout))
_REQUIRED = tuple(field.name for field in fields(Rollout) if field.default is MISSING)
_NEVER_NULL = ("id", "prompt")
_BOOLEANS = ("harmful", "refused")


def read_rollouts(path: str | os.PathLike[str]) -> list[Rollout]:
    """Reads a JSON Lines file of rollouts, in the order of the file.

    Args:
        path: One JSON object a line. `id`, `prompt`, `thinking` and `response` must be there (the last two
            may be null); the other keys of `Rollout` take their default where they are missing.

    Raises:
        CliffscopeError: Naming the file and the line, if the file is missing, empty or not JSON Lines, if a
            key is missing, unknown or of the wrong type, or if an id occurs twice.
    """
    rollouts: list[Rollout] = []
    first_line: dict[str, int] = {}
    for number, row in read_jsonl(path):
        where = f"{os.fspath(path)}, line {number}"
        rollout = rollout_from_row(row, where)
        if rollout.id in first_line:
            raise CliffscopeError(
                f"{where}: the id {rollout.id!r} is already on line {first_line[rollout.id]}; ids must differ."
            )
        first_line[rollout.id] = number
        rollouts.append(rollout)
    if not rollouts:
        raise CliffscopeError(f"{os.fspath(path)}: no rollouts; make some with `cliffscope rollout`.")
    return rollouts


def write_rollouts(path: str | os.PathLike[str], rollouts: Iterable[Rollout]) -> None:
    """Writes rollouts as JSON Lines, whole or not at all; `read_rollouts` gives them back unchanged.

    Raises:
        CliffscopeError: If a rollout is one that `read_rollouts` would not take (a value of the wrong type,
            text that is not Unicode, an id that occurs twice), or if the file cannot be written.
    """
    rollouts = list(rollouts)
    for name, count in Counter(rollout.id for rollout in rollouts).items():
        if count > 1:
            raise CliffscopeError(f"{os.fspath(path)}: {count} rollouts have the id {name!r}; ids must differ.")
    write_jsonl(path, [checked_row(rollout, os.fspath(path)) for rollout in rollouts])


def checked_row(rollout: Rollout, where: str) -> dict[str, Any]:
    """The rollout as a JSON object. Raises `CliffscopeError` if it is one that cannot be read back."""
    row = asdict(rollout)
    rollout_from_row(row, f"{where}, rollout {rollout.id!r}")
    return row


def rollout_from_row(row: Mapping[str, Any], where: str) -> Rollout:
    """Makes a rollout of a JSON object.

    Args:
        row: The object; see `read_rollouts` for its keys.
        where: What to call it in an error, such as `rollouts.jsonl, line 3`.

    Raises:
        CliffscopeError: If a key is missing or unknown, or a value is of the wrong type.
    """
    if missing := [key for key in _REQUIRED if key not in row]:
        raise CliffscopeError(f"{where}: no {_list(missing)}; a rollout has {_list(_REQUIRED)} (found: {_list(row)}).")
    # A misspelt key would otherwise be lost without a word, and its default used.
    if unknown := [key for key in row if key not in _KEYS]:
        raise CliffscopeError(f"{where}: unknown {_list(unknown)}; a rollout has only {_list(_KEYS)}.")
    for key, value in row.items():
        _check_value(key, value, where)
    if row["response"] is None and row.get("refused") is not None:
        raise CliffscopeError(
            f"{where}: 'refused' must be null where 'response' is null: the thinking was never closed."
        )
    return Rollout(**row)


def _check_value(key: str, value: Any, where: str) -> None:
    if key in _BOOLEANS:
        if value is not None and not isinstance(value, bool):
            raise CliffscopeError(f"{where}: {key!r} must be true, false or null, found {_show(value)}.")
        return
    if value is None and key not in _NEVER_NULL:
        return
    if not isinstance(value, str):
        kind = "text" if key in _NEVER_NULL else "text or null"
        raise CliffscopeError(f"{where}: {key!r} must be {kind}, found {_show(value)}.")
    if key in _NEVER_NULL and not value.strip():
        raise CliffscopeError(f"{where}: {key!r} is empty.")
    check_unicode(key, value, where)


def check_unicode(key: str, value: str, where: str) -> None:
    """Raises `CliffscopeError` if the text has a lone surrogate.

    JSON can spell half of a surrogate pair, but it is not a character: it can be neither written as UTF-8 nor
    tokenized, and replacing it here would change the user's data without a word.
    """
    if position := next((i for i, char in enumerate(value, 1) if "\ud800" <= char <= "\udfff"), 0):
        raise CliffscopeError(
            f"{where}: {key!r} is not valid Unicode (lone surrogate at character {position}); remove it."
        )


def _list(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)


def _show(value: Any) -> str:
    shown = repr(value)
    return f"{type(value).__name__} {shown if len(shown) <= 40 else shown[:37] + '...'}"
