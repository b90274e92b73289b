"""Tables as lines of text for a terminal, and as HTML for pages and notebooks; nothing in a cell is markup."""

import math
import textwrap
from collections.abc import Sequence
from html import escape

_GAP = "  "


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


def html_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as HTML, the first row the head and the first column names.

    Lines and no fills, so that it shows on any background; scrolls by itself where it is too wide. Where styles are
    taken away, as on GitHub, it is still a table.
    """
    style = "padding: 0.25rem 0.5rem; text-align: {}; border-bottom: 1px solid #8886; vertical-align: top"
    lines = []
    for number, row in enumerate(rows):
        cells = []
        for column, cell in enumerate(row):
            scope = "col" if number == 0 else "row"
            kind = f'th scope="{scope}"' if number == 0 or column == 0 else "td"
            look = style.format("right" if column else "left")
            cells.append(f'<{kind} style="{look}">{escape(cell)}</{kind.split()[0]}>')
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return (
        '<div style="overflow-x: auto"><table style="border-collapse: collapse; color: inherit; margin: 1rem 0; '
        f'font-size: 0.9em; font-variant-numeric: tabular-nums">{"".join(lines)}</table></div>'
    )


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
