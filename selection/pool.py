"""Pools: JSON Lines of prompts to choose training examples from, read one line at a time.

    {"prompt": "…", "id": "…", "harmful": true, "category": "…", "source": "…",
     "target_thinking": "…", "target_response": "…", "thinking": "…", "response": "…"}

Only the prompt must be there; its key is found by name as in prompt files. `target_thinking` and `target_response` are
what to train towards. `thinking` and `response` are the model's own rollout where that is known already, so a file of
rollouts is a pool too. Ids are kept while a pool is read, its texts are not.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp.errors import CliffscopeError
from interp.files import hash_file, read_jsonl
from interp.rollouts import Rollout
from interp.rollouts.prompts import PROMPT_COLUMNS, Prompt
from interp.rollouts.rollout import check_unicode, rollout_from_row

TARGET_KEYS = ("target_thinking", "target_response")

_LABELS = ("id", "harmful", "category", "source")
_OWN = ("thinking", "response", "refused", "model")


@dataclass(frozen=True)
class PoolExample:
    """One prompt of a pool.

    Attributes:
        id: Unique in its pool; made from the prompt's text where the pool gives none.
        prompt: The user's instruction, without any template.
        harmful: Whether it asks for something harmful; `None` if unknown.
        category: A label of its kind; `None` if there is none.
        source: Where it came from.
        target_thinking: The thinking to train towards; `None` if there is none.
        target_response: The safe answer to train towards; `None` if there is none.
        rollout: The model's own rollout; `None` where it is still to be generated.
    """

    id: str
    prompt: str
    harmful: bool | None = None
    category: str | None = None
    source: str | None = None
    target_thinking: str | None = None
    target_response: str | None = None
    rollout: Rollout | None = None

    def as_prompt(self) -> Prompt:
        """The prompt with what is known of it."""
        return Prompt(self.id, self.prompt, self.harmful, self.category, self.source)


def read_pool(path: str | os.PathLike[str]) -> Iterator[PoolExample]:
    """Yields the examples of a pool, in the order of the file.

    Keys that are not a pool's are passed over, as columns of a prompt file are; but what begins with `target_` must be
    spelt right, or targets would be lost without a word.

    Raises:
        CliffscopeError: Naming the file and the line: if it is missing, empty or not JSON Lines, if a prompt is
            missing, if a value is of the wrong type, if an id occurs twice, or if a row has a response but no thinking.
    """
    name, column = os.fspath(path), ""
    first_line: dict[str, int] = {}
    copies: Counter[str] = Counter()
    for number, row in read_jsonl(path):
        where = f"{name}, line {number}"
        column = column or _prompt_key(row, where)
        if column not in row:
            raise CliffscopeError(f"{where}: no {column!r}, which is the prompt's key on the first line.")
        example = _example(row, column, where, copies)
        if example.id in first_line:
            raise CliffscopeError(
                f"{where}: the id {example.id!r} is already on line {first_line[example.id]}; ids must differ."
            )
        first_line[example.id] = number
        yield example
    if not first_line:
        raise CliffscopeError(f"{name}: the pool is empty.")


@dataclass(frozen=True)
class PoolSurvey:
    """What a pool holds, from reading it once.

    Attributes:
        path: The file.
        sha256: Of the file's bytes.
        count: Examples.
        harmful: How many are labelled `harmful`, `benign` and `unlabelled`.
        own: How many come with the model's own rollout.
        targets: How many come with a target response.
        lacking: The ids of the first few that are not labelled benign and have no target response.
        n_lacking: How many these are.
    """

    path: Path
    sha256: str
    count: int
    harmful: Mapping[str, int]
    own: int
    targets: int
    lacking: tuple[str, ...]
    n_lacking: int


def survey_pool(path: str | os.PathLike[str]) -> PoolSurvey:
    """Reads a whole pool, so that a bad line is found before hours of work. Raises as `read_pool`."""
    labels: Counter[str] = Counter()
    count = own = targets = n_lacking = 0
    lacking: list[str] = []
    for example in read_pool(path):
        count += 1
        labels[{True: "harmful", False: "benign", None: "unlabelled"}[example.harmful]] += 1
        own += example.rollout is not None
        targets += example.target_response is not None
        if example.target_response is None and example.harmful is not False:
            n_lacking += 1
            lacking += [example.id] if len(lacking) < 3 else []
    return PoolSurvey(
        Path(path), hash_file(path), count, dict(sorted(labels.items())), own, targets, tuple(lacking), n_lacking
    )


def _prompt_key(row: Mapping[str, Any], where: str) -> str:
    by_name = {key.strip().casefold(): key for key in row}
    found = next((by_name[name] for name in PROMPT_COLUMNS if name in by_name), None)
    if found is None:
        raise CliffscopeError(
            f"{where}: no prompt; its key is one of {', '.join(PROMPT_COLUMNS)} (found: {', '.join(row) or 'none'})."
        )
    return found


def _example(row: Mapping[str, Any], column: str, where: str, copies: Counter[str]) -> PoolExample:
    if unknown := [key for key in row if key.startswith("target_") and key not in TARGET_KEYS]:
        raise CliffscopeError(f"{where}: unknown {unknown[0]!r}; a pool's targets are {' and '.join(TARGET_KEYS)}.")
    if row.get("response") is not None and "thinking" not in row:
        raise CliffscopeError(
            f"{where}: a response without 'thinking': give the model's thinking too, or call it 'target_response' if "
            "it is the answer to train towards."
        )
    labels = {key: _text(row.get(key)) for key in _LABELS} | {key: row.get(key) for key in _OWN}
    labels["id"] = labels["id"] if labels["id"] is not None else _content_id(row[column], copies)
    # One place says what a rollout's values may be.
    rollout = rollout_from_row({"prompt": row[column], **labels}, where)
    thinking, response = (_target(row, key, where) for key in TARGET_KEYS)
    if thinking is not None and response is None:
        raise CliffscopeError(f"{where}: 'target_thinking' without 'target_response'; give both.")
    return PoolExample(
        id=rollout.id,
        prompt=rollout.prompt,
        harmful=rollout.harmful,
        category=rollout.category,
        source=rollout.source,
        target_thinking=thinking,
        target_response=response,
        rollout=None if rollout.thinking is None and rollout.response is None else rollout,
    )


def _text(value: Any) -> Any:
    """Whole numbers as text, as ids and categories often are."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _target(row: Mapping[str, Any], key: str, where: str) -> str | None:
    value = row.get(key)
    if value is None:
        return None
    if not isinstance(value, str):
        raise CliffscopeError(f"{where}: {key!r} must be text or null, found {type(value).__name__}.")
    if key == "target_response" and not value.strip():
        raise CliffscopeError(f"{where}: {key!r} is empty; leave it out, or make it null.")
    check_unicode(key, value, where)
    return value


def _content_id(prompt: Any, copies: Counter[str]) -> str:
    """The id that prompt files give a prompt without one: 16 digits of its hash, numbered from the second copy on."""
    text = str(prompt)
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    copies[digest] += 1
    return digest if copies[digest] == 1 else f"{digest}-{copies[digest]}"
