"""What commands print: a short table for people, or with --json one object for programs."""

import json
import math
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_GAP = "  "


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


def table(rows: Sequence[Sequence[str]], width: int | None = None) -> list[str]:
    """Aligned lines without trailing spaces.

    Two columns are names and values, and long values are wrapped. More are a grid, whose first row is its head: numbers
    stand at the right. Where it is wider than `width` its columns move together, and then break into several blocks.
    """
    if not rows:
        return []
    if max(len(row) for row in rows) <= 2:
        return _pairs(rows, width)
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines: list[str] = []
    gap = _GAP if width is None or sum(widths) + len(_GAP) * (len(widths) - 1) <= width else " "
    for columns in _blocks(widths, width, len(gap)):
        lines += [""] if lines else []
        for row in rows:
            cells = [row[column].rjust(widths[column]) for column in columns]
            lines.append(gap.join([row[0].ljust(widths[0]), *cells]).rstrip())
    return lines


def wrap(text: str, width: int | None) -> list[str]:
    """The text in lines of at most `width` characters; a path is never broken."""
    if width is None:
        return [text]
    return textwrap.wrap(text, max(20, width), break_long_words=False, break_on_hyphens=False) or [""]


def show(value: object) -> str:
    """A cell as text: floats to three digits, a dash for what there is not."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:.3f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)


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


def _pairs(rows: Sequence[Sequence[str]], width: int | None) -> list[str]:
    indent = max(len(row[0]) for row in rows) + len(_GAP)
    lines: list[str] = []
    for name, *value in rows:
        first, *rest = wrap("".join(value), None if width is None else width - indent)
        lines += [(name.ljust(indent) + first).rstrip(), *(" " * indent + line for line in rest)]
    return lines


def _blocks(widths: Sequence[int], width: int | None, gap: int) -> list[list[int]]:
    """Columns after the first, in groups that fit beside it."""
    blocks: list[list[int]] = [[]]
    for column in range(1, len(widths)):
        needed = widths[0] + sum(gap + widths[other] for other in (*blocks[-1], column))
        if width is not None and blocks[-1] and needed > width:
            blocks.append([])
        blocks[-1].append(column)
    return blocks


def _print(text: str) -> None:
    """Writes a line, with `?` for what the terminal's encoding lacks."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding) + "\n")
