"""Tables of prompts: CSV, JSON, JSON Lines, Parquet and `datasets`, as rows that know where they stand."""

import csv
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp.errors import CliffscopeError
from interp.files import read_jsonl

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

Rows = Iterator[tuple[str, dict[str, Any]]]


@dataclass(frozen=True)
class Table:
    """A table whose rows are read on demand.

    Attributes:
        name: The path or the hub id, for errors.
        short_name: The name without its folder, recorded as the source of a prompt.
        columns: All names of columns.
        rows: Yields `(where, row)`, with `where` such as `line 3`.
    """

    name: str
    short_name: str
    columns: Sequence[str]
    rows: Callable[[], Rows]


def open_table(path_or_id: str | os.PathLike[str], config: str | None = None, split: str | None = None) -> Table:
    """Opens a file by its extension, a folder or a hub id by the `datasets` library.

    Raises:
        CliffscopeError: If it is missing, empty, of an unknown kind, or cannot be read.
    """
    name = os.fspath(path_or_id)
    path = Path(name).expanduser()
    if path.is_dir() or (not path.exists() and isinstance(path_or_id, str) and _is_hub_id(path_or_id)):
        return _open_dataset(name, path, config, split)
    if config is not None or split is not None:
        raise CliffscopeError(f"{name}: config and split are for data sets, not for files.")
    if not path.exists():
        raise CliffscopeError(f"{name}: no such file (a hub data set is named owner/name).")
    if path.suffix.lower() not in _OPENERS:
        raise CliffscopeError(f"{name}: unknown kind of file {path.suffix!r}; prompts come as {', '.join(_OPENERS)}.")
    try:
        if path.stat().st_size == 0:
            raise CliffscopeError(f"{name}: the file is empty.")
        return _OPENERS[path.suffix.lower()](name, path)
    except OSError as error:
        raise CliffscopeError(f"{name}: cannot be read ({error.strerror or error}).") from error
    except UnicodeDecodeError as error:
        raise CliffscopeError(f"{name}: not UTF-8 text (byte {error.start}).") from error


def _is_hub_id(name: str) -> bool:
    """Whether a name that does not exist here is a hub id and not a mistyped path."""
    file_like = Path(name).suffix.lower() in {*_OPENERS, ".txt", ".gz", ".zip", ".xlsx"}
    return _HUB_ID.fullmatch(name) is not None and not file_like and not Path(name).parent.is_dir()


def _open_csv(name: str, path: Path) -> Table:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","

    def records() -> Iterator[tuple[int, list[str]]]:
        # Excel writes a byte order mark, which must not become part of the first column's name.
        with path.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.reader(lines, delimiter=delimiter, strict=True)
            start = 1
            try:
                for record in reader:
                    if record:
                        yield start, record
                    start = reader.line_num + 1
            except csv.Error as error:
                raise CliffscopeError(f"{name}, line {start}: not valid CSV ({error}).") from error
            except UnicodeDecodeError as error:
                raise CliffscopeError(f"{name}: not UTF-8 text (near line {start}).") from error

    header = next(records(), (0, []))[1]
    if not header:
        raise CliffscopeError(f"{name}: the file is empty.")
    if len(set(header)) < len(header):
        twice = next(column for column in header if header.count(column) > 1)
        raise CliffscopeError(f"{name}, line 1: the column {twice!r} occurs twice.")

    def rows() -> Rows:
        body = records()
        next(body)
        for number, record in body:
            if len(record) != len(header):
                raise CliffscopeError(
                    f"{name}, line {number}: {len(record)} fields, but the header has {len(header)}; "
                    "quote text that contains the separator."
                )
            yield f"line {number}", dict(zip(header, record, strict=True))

    return Table(name, path.name, header, rows)


def _open_jsonl(name: str, path: Path) -> Table:
    # All lines say which columns there are: a label that only later lines have must not be overlooked.
    columns = dict.fromkeys(key for _, row in read_jsonl(path) for key in row)
    if not columns:
        raise CliffscopeError(f"{name}: the file is empty.")
    return Table(name, path.name, list(columns), lambda: ((f"line {n}", row) for n, row in read_jsonl(path)))


def _open_json(name: str, path: Path) -> Table:
    text = path.read_text(encoding="utf-8-sig")
    if not text.strip():
        raise CliffscopeError(f"{name}: the file is empty.")
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise CliffscopeError(
            f"{name}, line {error.lineno}: not valid JSON ({error.msg} at column {error.colno})."
        ) from error
    if isinstance(content, dict):
        lists = [key for key, value in content.items() if isinstance(value, list)]
        if len(lists) != 1:
            raise CliffscopeError(
                f"{name}: expected a list of objects, or an object with exactly one list; "
                f"found an object with {len(lists)} lists."
            )
        content = content[lists[0]]
    if not isinstance(content, list):
        raise CliffscopeError(f"{name}: expected a list of objects, found {type(content).__name__}.")
    for number, row in enumerate(content, 1):
        if not isinstance(row, dict):
            raise CliffscopeError(f"{name}, item {number}: expected an object, found {type(row).__name__}.")
    if not content:
        raise CliffscopeError(f"{name}: no prompts in it.")
    columns = dict.fromkeys(key for row in content for key in row)
    return Table(name, path.name, list(columns), lambda: ((f"item {n}", row) for n, row in enumerate(content, 1)))


def _open_parquet(name: str, path: Path) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        columns = pq.read_schema(path).names
    except pa.ArrowInvalid as error:
        raise CliffscopeError(f"{name}: not a Parquet file ({_one_line(error)}).") from error

    def rows() -> Rows:
        number = 0
        try:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=1024):
                    for row in batch.to_pylist():
                        number += 1
                        yield f"row {number}", row
        except (pa.ArrowInvalid, OSError) as error:
            raise CliffscopeError(f"{name}, after row {number}: broken Parquet ({_one_line(error)}).") from error

    return Table(name, path.name, columns, rows)


_OPENERS: dict[str, Callable[[str, Path], Table]] = {
    ".csv": _open_csv,
    ".tsv": _open_csv,
    ".json": _open_json,
    ".jsonl": _open_jsonl,
    ".ndjson": _open_jsonl,
    ".parquet": _open_parquet,
}


def _open_dataset(name: str, path: Path, config: str | None, split: str | None) -> Table:
    """Opens a hub data set, or a folder of data files, by the `datasets` library."""
    import datasets

    local = path.is_dir()
    bars_were_on = datasets.are_progress_bars_disabled() is False
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    try:
        # An absolute path: a bare name would be looked up on the hub first.
        loaded = datasets.load_dataset(str(path.resolve()) if local else name, config, split=split)
    except ConnectionError as error:
        raise CliffscopeError(
            f"{name}: no such file, and the Hugging Face hub cannot be reached for a data set of that name "
            f"({_one_line(error)}); give a file, or go online."
        ) from error
    # ValueError: no such split or configuration, which the message lists; DatasetNotFoundError is an OSError.
    except (ValueError, OSError, datasets.exceptions.DatasetsError) as error:
        raise CliffscopeError(f"{name}: cannot be loaded as a data set ({_one_line(error)}).") from error
    finally:
        if bars_were_on:
            datasets.enable_progress_bars()
    if isinstance(loaded, dict):
        if len(loaded) != 1:
            raise CliffscopeError(f"{name}: has the splits {', '.join(map(repr, loaded))}; name one of them.")
        loaded = next(iter(loaded.values()))
    short = path.resolve().name if local else name
    return Table(name, short, loaded.column_names, lambda: ((f"row {n}", dict(row)) for n, row in enumerate(loaded, 1)))


def _one_line(error: BaseException, width: int = 200) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= width else text[: width - 3] + "..."
