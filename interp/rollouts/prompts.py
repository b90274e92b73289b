"""Prompts: a set of instructions with what is known of them, read from a file or from the Hugging Face hub.

The parsing of each kind of file is in `interp.rollouts.prompt_files`; here its rows become prompts.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from typing import Any, overload

from interp.display.shown import Shown, Words
from interp.display.text import shortened
from interp.errors import CliffscopeError
from interp.rollouts.prompt_files import Table, open_table
from interp.rollouts.rollout import Rollout, check_unicode

# Names of the prompt column, the first that is there wins; compared without regard to case.
PROMPT_COLUMNS = ("prompt", "goal", "instruction", "question", "text")

_HARMFUL_WORDS = {"true": True, "1": True, "yes": True, "harmful": True, "unsafe": True}
_HARMFUL_WORDS |= {"false": False, "0": False, "no": False, "benign": False, "harmless": False, "safe": False}


@dataclass(frozen=True)
class Prompt:
    """One instruction.

    Attributes:
        id: Unique in its set.
        text: The instruction as the user would type it, without any template.
        harmful: Whether it asks for something harmful; `None` if unknown.
        category: A label of its kind, for held-out splits; `None` if there is none.
        source: Where it came from.
    """

    id: str
    text: str
    harmful: bool | None = None
    category: str | None = None
    source: str | None = None

    def rollout(
        self,
        thinking: str | None,
        response: str | None,
        *,
        refused: bool | None = None,
        model: str | None = None,
    ) -> Rollout:
        """The rollout that a model gave for this prompt; see `Rollout` for the arguments."""
        return Rollout(
            id=self.id,
            prompt=self.text,
            thinking=thinking,
            response=response,
            harmful=self.harmful,
            category=self.category,
            refused=refused,
            source=self.source,
            model=model,
        )


@dataclass(frozen=True, repr=False)
class PromptSet(Shown, Sequence[Prompt]):
    """Prompts in a fixed order, with different ids.

    Attributes:
        prompts: The prompts.
        source: The file or the data set that they were read from.
    """

    prompts: tuple[Prompt, ...]
    source: str = ""

    def __post_init__(self) -> None:
        for name, count in Counter(prompt.id for prompt in self.prompts).items():
            if count > 1:
                raise CliffscopeError(
                    f"{self.source or 'prompts'}: {count} prompts have the id {name!r}; ids must differ."
                )

    @overload
    def __getitem__(self, index: int) -> Prompt: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Prompt, ...]: ...
    def __getitem__(self, index: int | slice) -> Prompt | tuple[Prompt, ...]:
        return self.prompts[index]

    def __len__(self) -> int:
        return len(self.prompts)

    def __iter__(self) -> Iterator[Prompt]:
        return iter(self.prompts)

    def words(self) -> Words:
        """How many of each kind there are, and the first few."""
        kinds = Counter({True: "harmful", False: "benign", None: "without a label"}[p.harmful] for p in self)
        head = ", ".join(f"{count:,} {kind}" for kind, count in kinds.items()) or "empty"
        rows: list[list[object]] = [["id", "category", "prompt"]]
        rows += [[shortened(p.id, 32), p.category, shortened(p.text, 60)] for p in self.prompts[:6]]
        if len(self) > 6:
            rows.append([f"… {len(self) - 6:,} more", "", ""])
        return Words(f"Prompts of {self.source or 'no source'}", head, rows=rows)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all the prompts and their order; where they were read from does not matter."""
        content = json.dumps([astuple(prompt) for prompt in self.prompts], ensure_ascii=True)
        return hashlib.sha256(content.encode("ascii")).hexdigest()


def load_prompts(
    path_or_id: str | os.PathLike[str],
    column: str | None = None,
    harmful: bool | None = None,
    limit: int | None = None,
    *,
    config: str | None = None,
    split: str | None = None,
) -> PromptSet:
    """Loads prompts from a file, from a folder with a data set, or from the Hugging Face hub.

    Beside the prompt, the columns `id`, `harmful`, `category` and `source` are used where they are there. A
    prompt without an id gets one from its text, so that it keeps it when the file is sorted or cut; the
    second prompt with the same text gets `-2` appended, and so on. A file of rollouts can be given too.

    Args:
        path_or_id: A `.csv`, `.tsv`, `.json`, `.jsonl` or `.parquet` file, a folder, or a hub id such as
            `owner/name`. What exists or looks like a path is never asked of the hub.
        column: The column with the prompts; found by name (`PROMPT_COLUMNS`) if not given.
        harmful: What to take prompts for whose file does not say whether they are harmful.
        limit: Read only the first `limit` prompts.
        config: The configuration of a data set that has several.
        split: The split of a data set that has several.

    Raises:
        CliffscopeError: If the file is missing, empty, broken or has no such column, if a prompt is empty or
            an id occurs twice (naming the line), if a line contradicts `harmful`, or if the hub cannot be
            reached.
    """
    if limit is not None and limit < 1:
        raise CliffscopeError(f"limit must be at least 1, found {limit}.")
    table = open_table(path_or_id, config=config, split=split)
    columns = _find_columns(table, column)
    prompts: list[Prompt] = []
    seen: dict[str, str] = {}
    copies: Counter[str] = Counter()
    for where, row in table.rows():
        prompt = _prompt_of(row, columns, f"{table.name}, {where}", harmful, table.short_name)
        if "id" not in columns:
            copies[prompt.text] += 1
            prompt = Prompt(_content_id(prompt.text, copies[prompt.text]), *astuple(prompt)[1:])
        if prompt.id in seen:
            raise CliffscopeError(
                f"{table.name}, {where}: the id {prompt.id!r} is already on {seen[prompt.id]}; ids must differ."
            )
        seen[prompt.id] = where
        prompts.append(prompt)
        if len(prompts) == limit:
            break
    if not prompts:
        raise CliffscopeError(f"{table.name}: no prompts in it.")
    return PromptSet(tuple(prompts), table.name)


def _find_columns(table: Table, column: str | None) -> dict[str, str]:
    """Maps `prompt`, and those of the optional columns that are there, to their names in the table."""
    found: dict[str, list[str]] = {}
    for name in table.columns:
        found.setdefault(name.strip().casefold(), []).append(name)

    def named(name: str) -> str | None:
        names = found.get(name.casefold(), [])
        if len(names) > 1:
            raise CliffscopeError(
                f"{table.name}: the columns {', '.join(map(repr, names))} differ only in case; rename one."
            )
        return names[0] if names else None

    prompt: str | None
    if column is not None:
        prompt = column if column in table.columns else named(column)
        wanted = f"no column {column!r}"
    else:
        prompt = next((there for name in PROMPT_COLUMNS if (there := named(name))), None)
        wanted = f"no prompt column ({', '.join(PROMPT_COLUMNS)})"
    if prompt is None:
        raise CliffscopeError(
            f"{table.name}: {wanted}; the columns are {_shorten(', '.join(map(repr, table.columns)), 300)}. "
            "Name the column that has the prompts."
        )
    optional = {name: named(name) for name in ("id", "harmful", "category", "source")}
    return {"prompt": prompt} | {name: there for name, there in optional.items() if there not in (None, prompt)}


def _prompt_of(row: dict[str, Any], columns: dict[str, str], where: str, label: bool | None, source: str) -> Prompt:
    cells = {name: row.get(column) for name, column in columns.items()}
    text = cells["prompt"]
    if text is None or (isinstance(text, str) and not text.strip()):
        raise CliffscopeError(f"{where}: the prompt (column {columns['prompt']!r}) is empty or missing.")
    if not isinstance(text, str):
        raise CliffscopeError(
            f"{where}: the prompt (column {columns['prompt']!r}) must be text, found {type(text).__name__}."
        )
    check_unicode(columns["prompt"], text, where)
    harmful = _harmful_of(cells.get("harmful"), where)
    if harmful is not None and label is not None and harmful != label:
        raise CliffscopeError(
            f"{where}: says harmful = {str(harmful).lower()}, against the label given for the whole file; "
            "leave the label out."
        )
    ident = _label_of(cells.get("id"), "id", where)
    if "id" in columns and ident is None:
        raise CliffscopeError(f"{where}: no id; give every prompt one, or remove the column {columns['id']!r}.")
    return Prompt(
        id=ident or "",
        text=text,
        harmful=label if harmful is None else harmful,
        category=_label_of(cells.get("category"), "category", where),
        source=_label_of(cells.get("source"), "source", where) or source,
    )


def _label_of(value: Any, name: str, where: str) -> str | None:
    """Text or a whole number as text; `None` if there is none."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise CliffscopeError(f"{where}: {name!r} must be text or a whole number, found {_shorten(repr(value), 40)}.")
    check_unicode(name, str(value), where)
    return str(value)


def _harmful_of(value: Any, where: str) -> bool | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, bool | int | float) and value in (0, 1):
        return bool(value)
    if isinstance(value, str) and value.strip().casefold() in _HARMFUL_WORDS:
        return _HARMFUL_WORDS[value.strip().casefold()]
    raise CliffscopeError(
        f"{where}: 'harmful' is {_shorten(repr(value), 40)}; it must be true, false, 0, 1, harmful or benign."
    )


def _content_id(text: str, copy: int) -> str:
    """16 hexadecimal digits of the text's SHA-256: no clash among a million texts; readable in a table."""
    digest = hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]
    return digest if copy == 1 else f"{digest}-{copy}"


def _shorten(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."
