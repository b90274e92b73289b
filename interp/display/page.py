"""A page for figures: one self-contained HTML file that opens from disk, with nothing loaded from a network."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from interp.display.tables import html_table

if TYPE_CHECKING:
    import plotly.graph_objects as go


def page(
    title: str, text: str, figures: "Mapping[str, go.Figure]", tables: Sequence[Sequence[Sequence[str]]] = ()
) -> str:
    """Figures and tables below some text. Equal input gives equal bytes.

    Args:
        title: Of the window.
        text: Plain text; each line becomes a paragraph, and nothing in it is markup.
        figures: By element id: without one, plotly would draw a random id for every file.
        tables: Rows of cells, the first row the head and the first column names; nothing in them is markup.
    """
    plots = [
        figure.to_html(include_plotlyjs=number == 0, full_html=False, div_id=name)
        for number, (name, figure) in enumerate(figures.items())
    ]
    paragraphs = "".join(f"<p>{escape(line)}</p>" for line in text.splitlines())
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        # Light or dark, as the reader has it: the figures have no background and show on both.
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title></head>"
        '<body style="font-family: system-ui, sans-serif; max-width: 1100px; margin: 1rem auto; padding: 0 1rem">'
        f"{paragraphs}{''.join(plots)}{''.join(map(html_table, tables))}</body></html>\n"
    )
