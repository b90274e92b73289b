"""Judgements that were paid for, kept in a file: appended one by one, safe when killed, shared by several runs."""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from interp.errors import CliffscopeError
from interp.judges.protocol import Judgement

_HEADER = b'{"format": "cliffscope.judgements", "version": 1}\n'


class JudgementCache:
    """Judgements by a key of all that they depend on.

    The file is JSON Lines: a first line that says what it is, then a line for each judgement, on the disk before `add`
    returns. A line that was being written when a run was killed is skipped when read, and judged again.

    Args:
        path: The file; made with the first judgement. `None` keeps judgements in memory only.

    Raises:
        CliffscopeError: If there is a file that is no such cache, or it cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = None if path is None else Path(path)
        self._known: dict[str, Judgement] = {}
        if self.path is not None:
            self._read(self.path)

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def __getitem__(self, key: str) -> Judgement:
        return self._known[key]

    @staticmethod
    def key(judge: str, prompt: str, response: str) -> str:
        """A hash of the judge's name and both texts."""
        return hashlib.sha256(json.dumps([judge, prompt, response]).encode()).hexdigest()

    def add(self, key: str, judgement: Judgement) -> None:
        """Keeps a judgement. Raises `CliffscopeError` if the file cannot be written."""
        self._known[key] = judgement
        if self.path is None:
            return
        row = {"key": key, "refused": judgement.refused, "score": judgement.score, "reason": judgement.reason}
        line = (json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with _locked(self.path) as descriptor:
                _write(descriptor, _before(descriptor) + line)
        except OSError as error:
            raise CliffscopeError(
                f"{self.path}: cannot be written ({error.strerror or error}); the judgements before are kept."
            ) from error

    def _read(self, path: Path) -> None:
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            raise CliffscopeError(f"{path}: cannot be read ({error.strerror or error}).") from error
        if not data.startswith(_HEADER[: len(data)]):
            raise CliffscopeError(f"{path}: is no cache of judgements; give another name, or remove the file.")
        for line in data.split(b"\n")[1:]:
            if row := _row(line):
                self._known[row[0]] = row[1]


def _row(line: bytes) -> tuple[str, Judgement] | None:
    """Key and judgement of a line; `None` if it is torn or blank."""
    try:
        row = json.loads(line)
        return str(row["key"]), Judgement(row["refused"], row["score"], row["reason"])
    except (ValueError, KeyError, TypeError):
        return None


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """The file opened for appending, locked against other runs' appending."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _before(descriptor: int) -> bytes:
    """What must come before a new line: the header, or the end of a line that a killed run left unfinished."""
    size = os.fstat(descriptor).st_size
    if size < len(_HEADER):
        return _HEADER[size:]
    return b"" if os.pread(descriptor, 1, size - 1) == b"\n" else b"\n"


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
    os.fsync(descriptor)
