"""Objects that show themselves: in Jupyter with words, a table and a picture, on a terminal in a few lines.

What a notebook gets of an object is `text/plain` and `text/html`. The HTML holds a sentence or two, a table, and the
picture as a PNG inside an `<img>` with a text in its place: it needs no script, no style and no network, so it is the
same in JupyterLab, in VS Code, on GitHub and in an exported file, on a light page and on a dark one, and takes well
below 150 kB of a notebook. `figure()` gives the interactive Plotly figure of the same picture. After
`interp.display.live()`, or with `CLIFFSCOPE_LIVE=1` in the environment, objects show that one where a front end can
show it; its data then lie in the notebook too, beside the HTML that GitHub goes on to show.
"""

import base64
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from interp.display.tables import html_table, show, table, wrap
from interp.display.text import printable
from interp.errors import CliffscopeError

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from rich.text import Text

PLOTLY = "application/vnd.plotly.v1+json"
"""How a notebook calls an interactive figure."""
WIDTH = 96
"""Characters of a line on a terminal."""

_setting = {"live": os.environ.get("CLIFFSCOPE_LIVE", "0") not in ("", "0")}


def live(on: bool = True) -> None:
    """Whether objects show their interactive figures too, where a front end is alive; see the module."""
    _setting["live"] = on


@dataclass(frozen=True)
class Words:
    """What an object says of itself.

    Attributes:
        title: What it is: `Cliff of organism:cliff`.
        head: The finding, in a few words.
        text: Sentences, a paragraph each.
        rows: A table, its first row the head and its first column names; may be empty.
        alt: What stands in the picture's place where it cannot be seen; the title and the head if empty.
    """

    title: str
    head: str
    text: Sequence[str] = ()
    rows: Sequence[Sequence[object]] = ()
    alt: str = ""

    @property
    def line(self) -> str:
        """Title and head on one line."""
        return printable(f"{self.title}: {self.head}" if self.head else self.title)

    @property
    def cells(self) -> list[list[str]]:
        """The table's cells as texts without anything that cannot be printed."""
        return [[printable(show(cell)) for cell in row] for row in self.rows]


class Shown:
    """An object that says in words what it is; a class gives `words` and the rest follows."""

    def words(self) -> Words:
        """What the object says of itself."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<{self.words().line}>"

    def __str__(self) -> str:
        return in_lines(self.words())

    def __rich__(self) -> "Text":
        from rich.text import Text

        # Not a string, in which brackets would be markup.
        return Text(str(self))

    def html(self) -> str:
        """The object as HTML without scripts; nothing in it but what is written here is markup."""
        return in_html(self.words())

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        text = {"text/plain": in_lines(self.words())}
        return text if _is_terminal() else {**text, "text/html": self.html()}


class Drawn(Shown):
    """An object that draws itself as well; a class gives `figure` too."""

    def figure(self) -> "go.Figure":
        """The picture, interactive."""
        raise NotImplementedError

    def html(self) -> str:
        """The object as HTML without scripts, with its picture; nothing in it but what is written here is markup."""
        words = self.words()
        return in_html(words, picture(self, words))

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        bundle = super()._repr_mimebundle_(include, exclude)
        if _setting["live"] and "text/html" in bundle:
            try:
                bundle[PLOTLY] = json.loads(self.figure().to_json())
            except CliffscopeError:
                # The HTML says why there is no picture.
                return bundle
        return bundle


def picture(drawn: Drawn, words: Words) -> str:
    """The static picture of an object as an `<img>`, or in its place the reason why there is none."""
    from interp.display.static import png, size_of

    try:
        figure = drawn.figure()
    except CliffscopeError as error:
        return f"<p><i>No picture: {escape(printable(str(error)))}</i></p>"
    data = base64.b64encode(png(figure)).decode("ascii")
    width, height = size_of(figure)
    alt = escape(printable(words.alt) or words.line)
    look = "max-width: 100%; height: auto"
    source = f"data:image/png;base64,{data}"
    return f'<p><img src="{source}" alt="{alt}" width="{width}" height="{height}" style="{look}"></p>'


def in_lines(words: Words, width: int = WIDTH) -> str:
    """The words for a terminal."""
    lines = [words.line]
    for paragraph in words.text:
        lines += [f"  {line}" for line in wrap(printable(paragraph), width - 2)]
    lines += [f"  {line}".rstrip() for line in table(words.cells, width - 2)]
    return "\n".join(lines)


def in_html(words: Words, inside: str = "") -> str:
    """The words for a notebook, with HTML of a picture between the title and the sentences."""
    head = f": {escape(printable(words.head))}" if words.head else ""
    paragraphs = "".join(f"<p>{escape(printable(line))}</p>" for line in words.text)
    rows = html_table(words.cells) if words.rows else ""
    return f"<div><p><b>{escape(printable(words.title))}</b>{head}</p>{inside}{paragraphs}{rows}</div>"


def _is_terminal() -> bool:
    """Whether IPython runs in a terminal, which shows text alone; a picture would be drawn for nobody."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    formatter = getattr(shell, "display_formatter", None)
    return formatter is not None and list(formatter.active_types) == ["text/plain"]
