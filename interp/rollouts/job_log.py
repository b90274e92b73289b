"""An append-only log of finished work: locked against a second run, whole lines only, kept when killed."""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from interp.errors import CliffscopeError


class JobLog:
    """The log of one job, held under an exclusive lock. Made by `JobLog.open`.

    Attributes:
        header: The first line, which says what the job is; `None` if the log is new.
        rows: The other lines: what is finished.
    """

    def __init__(self, path: Path, out: Path, descriptor: int) -> None:
        self.path, self.out, self._descriptor = path, out, descriptor
        lines = self._whole_lines()
        self.header: dict[str, Any] | None = lines[0] if lines else None
        self.rows: list[dict[str, Any]] = lines[1:]
        self._discarded = False

    @classmethod
    @contextmanager
    def open(cls, path: Path, out: Path) -> Iterator["JobLog"]:
        """Opens or makes the log at `path` of the job that writes `out`, and locks it until the block ends.

        The lock is the operating system's: it ends with the process, also when that is killed. A log in which
        nothing finished stands is removed.

        Raises:
            CliffscopeError: If another process holds the lock, or the log cannot be written or is damaged.
        """
        if out.is_dir():
            raise CliffscopeError(f"{out}: is a folder; give a file name.")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = _open_locked(path, out)
        except OSError as error:
            raise CliffscopeError(f"{out}: cannot be written ({error.strerror or error}).") from error
        try:
            log = cls(path, out, descriptor)
            try:
                yield log
            finally:
                # Removed while still locked, so that no other run can have begun to write into it.
                if log._discarded or not log.rows:
                    path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)

    def start(self, header: Mapping[str, Any]) -> None:
        """Empties the log and writes its first line. Raises `CliffscopeError` if it cannot."""
        os.ftruncate(self._descriptor, 0)
        self.header, self.rows = dict(header), []
        self._write(header)

    def append(self, row: Mapping[str, Any]) -> None:
        """Adds one line, and returns when it is on the disk. Raises `CliffscopeError` if it cannot."""
        self._write(row)
        self.rows.append(dict(row))

    def discard(self) -> None:
        """Removes the log when the block ends."""
        self._discarded = True

    def _write(self, row: Mapping[str, Any]) -> None:
        data = (json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8")
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
            os.fsync(self._descriptor)
        except OSError as error:
            raise CliffscopeError(
                f"{self.out}: cannot be written ({error.strerror or error}); what was finished before is kept: "
                "make room and run the same command again."
            ) from error

    def _whole_lines(self) -> list[dict[str, Any]]:
        """All lines that end; a last line without an end is cut off, it was being written when the job died."""
        with os.fdopen(os.dup(self._descriptor), "rb") as file:
            file.seek(0)
            data = file.read()
        whole = data.rfind(b"\n") + 1
        os.ftruncate(self._descriptor, whole)
        lines = []
        for number, line in enumerate(data[:whole].split(b"\n")[:-1], 1):
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if not isinstance(row, dict):
                raise CliffscopeError(
                    f"{self.path}, line {number}: damaged; use --restart, or remove the file to start over."
                )
            lines.append(row)
        return lines


def _open_locked(path: Path, out: Path) -> int:
    """A descriptor of the file at `path`, locked. Raises `CliffscopeError` if another process has it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The run that had the lock may have removed the file since it was opened here.
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except BlockingIOError as error:
            os.close(descriptor)
            raise CliffscopeError(f"{out}: another run is writing it; wait for it, or choose another name.") from error
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
