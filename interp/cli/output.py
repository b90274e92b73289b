"""What commands print: a short table for people, or with --json one object for programs."""

import json
import math
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from interp.display.tables import show, table, wrap


def emit(
    payload: Mapping[str, Any],
    *,
    as_json: bool,
    title: str,
    rows: Iterable[Sequence[object]],
    below: Iterable[Sequence[object]] = (),
    note: str = "",
) -> None:
    """Prints the payload as one JSON object, or the rows as a table, then those of another below, then sentences.

    Lines are wrapped on a terminal only: what is piped keeps one line a row.
    """
    if as_json:
        _print(json.dumps(plain(payload)))
        return
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    lines = [title]
    for grid in (rows, below):
        shown = table([[show(cell) for cell in row] for row in grid], width)
        lines += ["", *shown] if grid is below and shown else shown
    for paragraph in note.splitlines():
        lines += wrap(paragraph, width)
    _print("\n".join(lines))


def counts(counted: Mapping[str, int]) -> str:
    """`3 not judged, 1 thinking unclosed`, or `none`."""
    return ", ".join(f"{count} {reason}" for reason, count in counted.items()) or "none"


def plain(value: Any) -> Any:
    """A value that JSON can hold: NaN and infinities become null, paths and other objects text."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if hasattr(value, "item"):  # a NumPy or torch scalar
        return plain(value.item())
    return str(value)


def _print(text: str) -> None:
    """Writes a line, with `?` for what the terminal's encoding lacks."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding) + "\n")
