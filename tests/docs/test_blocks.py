"""Every code block of the README and of the documentation is run; what cannot be is marked, counted, and parsed."""

import contextlib
import csv
import io
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.forks import Forks
from tests.docs.blocks import LANGUAGES, Block, all_pages, blocks_of, read_blocks
from tests.docs.material import write_starter
from tests.docs.preludes import PRELUDES
from tests.docs.shell import check_line, lines_of, run_line

NOT_RUN = {
    "README.md": 1,
    "docs/bench.md": 2,
    "docs/calibration.md": 1,
    "docs/how-to/demo.md": 3,
    "docs/how-to/repair.md": 1,
    "docs/how-to/rollouts.md": 2,
    "docs/layout.md": 1,
    "docs/quickstart.md": 1,
    "docs/your-model.md": 1,
    "interp/models/interop/README.md": 1,
}
"""How many blocks of each page are not run. One more needs a reason in the page and a number here."""


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    made = Forks()
    yield made
    made.close()


@pytest.fixture(scope="module")
def starter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("starter")
    write_starter(folder)
    return folder


@pytest.fixture
def folder(tmp_path: Path, starter: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the files that pages start from."""
    shutil.copytree(starter, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_page(blocks: list[Block], folder: Path, forks: Forks, names: dict[str, Any]) -> None:
    """Runs the blocks of a page in order, in one namespace and one folder."""
    printed = ""
    for block in blocks:
        if block.reason is not None:
            continue
        if block.title is not None:
            (folder / block.title).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            printed += run_python(block, folder, names)
        elif block.language == "sh":
            printed += "".join(run_line(words, folder, forks) for words in lines_of(block.text))
        elif block.language == "text":
            check_printed(block, printed)


def run_python(block: Block, folder: Path, names: dict[str, Any]) -> str:
    """Runs a block as a file, since some libraries read the source of their caller; returns what it printed."""
    file = folder / f"line_{block.line}.py"
    file.write_text(block.text, encoding="utf-8")
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(block.text, str(file), "exec"), names)
    return said.getvalue()


def check_printed(block: Block, printed: str) -> None:
    """Each line of a block of output was printed before on its page, white space aside; `…` stands for anything."""
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    for line in block.text.splitlines():
        parts = [part.strip() for part in " ".join(line.split()).split("…")]
        fits = [said for said in lines if all(part in said for part in parts)]
        assert fits, f"{block}: nothing on the page printed {line!r}\n{printed}"


@pytest.mark.slow
@pytest.mark.parametrize("page", all_pages())
def test_the_blocks_of_a_page_run(page: str, folder: Path, forks: Forks) -> None:
    names: dict[str, Any] = {"__name__": "page"}
    exec(PRELUDES.get(page, ""), names)
    run_page(blocks_of(page), folder, forks, names)


@pytest.mark.parametrize("page", all_pages())
def test_every_block_has_a_language_and_parses(page: str) -> None:
    for block in blocks_of(page):
        assert block.language in LANGUAGES, f"{block}: use a fence with one of {', '.join(LANGUAGES)}"
        if block.language == "python":
            compile(block.text, str(block), "exec")
        elif block.language == "sh":
            for words in lines_of(block.text):
                check_line(words)
        elif block.language == "json":
            json.loads(block.text)
        elif block.language == "jsonl":
            assert all(isinstance(json.loads(line), dict) for line in block.text.splitlines()), block
        elif block.language == "csv":
            assert len({len(row) for row in csv.reader(io.StringIO(block.text))}) == 1, block


def test_what_is_not_run_is_counted() -> None:
    found = Counter(block.page for page in all_pages() for block in blocks_of(page) if block.reason is not None)
    assert dict(found) == NOT_RUN


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("```\nrm -rf x\n```", ""),
        ("```bash\nls\n```", "bash"),
        ("Some text.\n\n    cliffscope demo\n", ""),
        ('=== "Tab"\n\n    ```python\n    1 / 0\n    ```\n', ""),
        ("<pre><code>cliffscope demo</code></pre>\n", ""),
    ],
)
def test_a_block_of_another_kind_does_not_escape(text: str, language: str) -> None:
    (block,) = read_blocks("page.md", text)
    assert block.language == language and language not in LANGUAGES


def test_a_reason_belongs_to_the_next_block_only() -> None:
    block = "```sh\nls\n```\n\n"
    text = f"<!-- not run: needs\na hub -->\n\n{block}{block}<!-- not run: no -->\nWords.\n\n{block}"
    assert [block.reason for block in read_blocks("page.md", text)] == ["needs a hub", None, None]


@pytest.mark.parametrize(
    "line",
    [
        ["cliffscope", "inspect", "--modle", "m"],
        ["cliffscope", "inspekt"],
        ["cliffscope", "cliff", "--model", "m"],
        ["make", "everything"],
        ["curl", "example"],
    ],
)
def test_a_line_that_nobody_could_run_is_found(line: list[str]) -> None:
    with pytest.raises(Exception, match=r"No such option|no command|Missing parameter|everything|curl"):
        check_line(line)


def test_a_block_that_fails_fails_its_page(tmp_path: Path, forks: Forks) -> None:
    for text, error in (
        ("```python\nassert 1 + 1 == 3\n```", AssertionError),
        ("```python\nprint(1)\n```\n\n```text\n2\n```", AssertionError),
        ("```sh\ncliffscope mask show missing.safetensors\n```", AssertionError),
        ("```sh\nmake demo\n```", AssertionError),
    ):
        with pytest.raises(error):
            run_page(read_blocks("page.md", text), tmp_path, forks, {})
