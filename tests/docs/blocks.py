"""Code blocks of Markdown pages: what each is, and whether it says that it is not run."""

import re
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]

LANGUAGES = ("python", "sh", "json", "jsonl", "csv", "text")
"""All that may stand in a page: the first two are run, data is parsed, `text` is what was printed before."""

_REASON = re.compile(r"<!--\s*not run:\s*(.+?)\s*-->", re.DOTALL)
_TITLE = re.compile(r'title="([^"]+)"')


@dataclass(frozen=True)
class Block:
    """One code block.

    Attributes:
        page: The file, relative to the repository.
        line: Where it begins, from 1.
        language: The first word of its info string; `""` for a block by indentation, whose language nobody knows.
        text: Its content.
        title: The file that it shows, from `title="…"`; `None` for others.
        reason: Why it is not run; `None` if it is.
    """

    page: str
    line: int
    language: str
    text: str
    title: str | None = None
    reason: str | None = None

    def __str__(self) -> str:
        return f"{self.page}:{self.line} ({self.language or 'no language'})"


@dataclass
class Page:
    """A page with its blocks, in order."""

    name: str
    blocks: list[Block] = field(default_factory=list)


def read_blocks(name: str, text: str) -> list[Block]:
    """The code blocks of a page, in order.

    A comment `<!-- not run: why -->` right before a block says that it is not run. Blocks inside tabs or notes, which
    are indented there, come out without a language, as do `<pre>` elements: neither can be told from what is no code.
    """
    blocks: list[Block] = []
    reason: str | None = None
    for token in MarkdownIt("commonmark").parse(text):
        line = token.map[0] + 1 if token.map else 0
        if token.type in ("fence", "code_block"):
            info = token.info.strip()
            language = info.split()[0] if token.type == "fence" and info else ""
            title = _TITLE.search(info)
            content = textwrap.dedent(token.content)
            blocks.append(Block(name, line, language, content, title and title.group(1), reason))
        if token.type == "html_block" and "<pre" in token.content:
            blocks.append(Block(name, line, "", token.content))
        found = _REASON.fullmatch(token.content.strip()) if token.type == "html_block" else None
        reason = " ".join(found.group(1).split()) if found else None
    return blocks


def all_pages() -> list[str]:
    """The README, the pages of `docs/`, and the Markdown of packages that these include."""
    docs = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))
    return ["README.md", *docs, "interp/models/interop/README.md", "interventions/masks/RECIPE.md"]


def blocks_of(page: str) -> list[Block]:
    return read_blocks(page, (ROOT / page).read_text(encoding="utf-8"))
