"""Writing files whole or not at all, hashing them, and reading JSON Lines with errors that name the line."""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from interp.errors import CliffscopeError


def write_atomically(path: str | os.PathLike[str], write: Callable[[Path], object]) -> None:
    """Calls `write` with a temporary path beside `path`, then renames: `path` is whole or untouched.

    Args:
        path: The file to make or replace; missing parent folders are made.
        write: Writes the content to the path that it is given.

    Raises:
        CliffscopeError: If the file cannot be written (no space, no permission, not a folder).
    """
    write_together({Path(path): write})


def write_together(writers: Mapping[Path, Callable[[Path], object]]) -> None:
    """Writes several files that belong together: none is renamed into place before all are written.

    Args:
        writers: For each file what writes its content to the path that it is given; in this order they are renamed.

    Raises:
        CliffscopeError: If one cannot be written; what was there before is untouched, and folders made are removed.
    """
    partials = {path: path.with_name(f".{path.name}.{os.getpid()}.partial") for path in writers}
    made: list[Path] = []
    done = False
    path = Path()
    try:
        for path, write in writers.items():
            made += _make_folders(path.parent)
            _remove_abandoned(path)
            write(partials[path])
        for path, partial in partials.items():
            partial.replace(path)
        done = True
    except OSError as error:
        raise CliffscopeError(f"{path}: cannot be written ({error.strerror or error}).") from error
    finally:
        for partial in partials.values():
            if partial.parent.is_dir():
                partial.unlink(missing_ok=True)
        for folder in reversed(made if not done else []):
            # Another process may have written into it.
            with contextlib.suppress(OSError):
                folder.rmdir()


def _make_folders(folder: Path) -> list[Path]:
    """Makes a folder and its parents; returns those that were not there, outermost first."""
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()][::-1]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _remove_abandoned(path: Path) -> None:
    """Removes what a process that was killed while it wrote `path` left behind."""
    for other in path.parent.iterdir():
        match = re.fullmatch(re.escape(f".{path.name}.") + r"(\d+)\.partial", other.name)
        if match and not _is_running(int(match[1])):
            other.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    if os.name == "nt":  # There the next call would end it.
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes UTF-8 text atomically. Raises `CliffscopeError` if it cannot."""
    write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def write_jsonl(path: str | os.PathLike[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes one JSON object a line, atomically. Raises `CliffscopeError` if it cannot."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_jsonl(path: str | os.PathLike[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields `(line number from 1, object)` of every line that is not blank.

    Raises:
        CliffscopeError: If the file is missing or not text, or a line is not a JSON object.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except json.JSONDecodeError as error:
                    raise CliffscopeError(
                        f"{path}, line {number}: not valid JSON ({error.msg} at column {error.colno})."
                    ) from error
                if not isinstance(row, dict):
                    raise CliffscopeError(f"{path}, line {number}: expected a JSON object, found {type(row).__name__}.")
                yield number, row
    except FileNotFoundError as error:
        raise CliffscopeError(f"{path}: no such file.") from error
    except UnicodeDecodeError as error:
        raise CliffscopeError(f"{path}: not UTF-8 text (byte {error.start}).") from error
    except OSError as error:
        raise CliffscopeError(f"{path}: cannot be read ({error.strerror or error}).") from error


def hash_file(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes, read in pieces. Raises `CliffscopeError` if it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CliffscopeError(f"{os.fspath(path)}: cannot be read ({error.strerror or error}).") from error
