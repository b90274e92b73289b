"""What commands print: a short table for people, or with --json one object for programs."""

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def emit(
    payload: Mapping[str, Any], *, as_json: bool, title: str, rows: Iterable[Sequence[object]], note: str = ""
) -> None:
    """Prints the payload as JSON, or the rows as a table with an optional sentence below."""
    if as_json:
        sys.stdout.write(json.dumps(plain(payload), ensure_ascii=False) + "\n")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(soft_wrap=True)
    body = [[Text(show(cell)) for cell in row] for row in rows]
    table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for row in body:
        table.add_row(*row)
    console.print(table)
    if note:
        console.print(Text(note))


def show(value: object) -> str:
    """A cell as text: floats to three digits, nothing for `None`."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:.3f}"
    return str(value)


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
