"""What was run: the command, on what, when, with which versions, and the hash of every file that it left.

    {"format": "cliffscope.run", "version": "1", "command": "cliffscope demo --out runs/demo …", "started": "…Z",
     "seconds": 93.1, "versions": {…}, "platform": "…", "device": "cpu", "dtype": "float32", "seed": 0,
     "model": {"name": "…", "fingerprint": {…}}, "files": [{"path": "…", "sha256": "…", "bytes": 1234}, …]}

It is written last: where it is, the run was finished. It needs no heavy library.
"""

import importlib.metadata
import json
import os
import platform
import shlex
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.files import hash_file, write_text

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel

FORMAT = "cliffscope.run"
VERSION = "1"
NAME = "run.json"
"""How the file is called in a run's folder."""
LIBRARIES = ("cliffscope", "torch", "transformers", "transformer-lens")


def command_line(command: str, options: Mapping[str, Any]) -> str:
    """The command with every option written out, so that it can be run again whatever the defaults become.

    Args:
        command: Its name, as in `heads rank`.
        options: By parameter name; `None` and `False` are left out, `True` is the option alone.
    """
    words = ["cliffscope", *command.split()]
    for name, value in options.items():
        if value is None or value is False:
            continue
        words.append(f"--{name.replace('_', '-')}")
        if value is not True:
            words.append(str(value))
    return shlex.join(words)


def write_manifest(
    folder: str | os.PathLike[str],
    *,
    command: str,
    started: datetime,
    seconds: float,
    model: "HookedModel",
    seed: int,
    files: Iterable[Path],
) -> dict[str, Any]:
    """Writes `run.json` into the run's folder.

    Args:
        folder: The run's folder.
        command: See `command_line`.
        started: When, with its time zone.
        seconds: How long it took.
        model: On which model.
        seed: With which seed.
        files: What it left: files, and folders for all files in them. Those inside `folder` are named from there.

    Returns:
        What was written.

    Raises:
        CliffscopeError: If a file cannot be read, or the manifest not be written.
    """
    folder = Path(folder)
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "command": command,
        "started": started.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "seconds": round(seconds, 1),
        "versions": versions(),
        "platform": platform.platform(),
        "device": str(model.device),
        "dtype": str(model.dtype).removeprefix("torch."),
        "seed": seed,
        "model": {"name": model.name, "fingerprint": model.fingerprint},
        "files": [_entry(path, folder) for path in _all_files(files) if path != folder / NAME],
    }
    write_text(folder / NAME, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
    return manifest


def versions() -> dict[str, str | None]:
    """Python's version, and those of the libraries that figures depend on; `None` for one that is not installed."""
    return {"python": platform.python_version(), **library_versions(LIBRARIES)}


def library_versions(names: Iterable[str]) -> dict[str, str | None]:
    """The installed version of each distribution; `None` for one that is not installed."""
    found: dict[str, str | None] = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def _all_files(paths: Iterable[Path]) -> list[Path]:
    found: set[Path] = set()
    for path in paths:
        found |= {inner for inner in path.rglob("*") if inner.is_file()} if path.is_dir() else {path}
    return sorted(found)


def _entry(path: Path, folder: Path) -> dict[str, Any]:
    name = path.relative_to(folder) if path.is_relative_to(folder) else path
    return {"path": name.as_posix(), "sha256": hash_file(path), "bytes": path.stat().st_size}
