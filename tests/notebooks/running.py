"""Executes a notebook in a folder of its own and looks at what a reader would see."""

from pathlib import Path

import nbformat
from nbformat import NotebookNode

from notebooks import run

MAX_SECONDS = 60
"""Of CPU, so that a busy machine does not matter; all of it is on one thread."""

_TIME = """
import resource as _resource

_used = [_resource.getrusage(who) for who in (_resource.RUSAGE_SELF, _resource.RUSAGE_CHILDREN)]
print(sum(used.ru_utime + used.ru_stime for used in _used))
"""


def path_of(number: int) -> Path:
    """The notebook with that number."""
    [path] = run.FOLDER.glob(f"{number}_*.ipynb")
    return path


def check(number: int, folder: Path, claims: str) -> None:
    """Executes a notebook, and then claims in the same kernel: Python that asserts of the notebook's own variables.

    Fails if a cell or a claim raises, if a reader would see a warning or what is not the same on every run, if it takes
    too long, or if its cells give other kinds of output than those that are committed.
    """
    committed = run.read(path_of(number))
    notebook = run.read(path_of(number))
    notebook.cells += [nbformat.v4.new_code_cell(source) for source in (_TIME, claims)]
    run.execute(notebook, folder)
    seconds = float(notebook.cells[-2].outputs[0].text)
    notebook.cells = notebook.cells[:-2]
    run.clean(notebook)
    assert run.problems(notebook) == []
    assert kinds(notebook) == kinds(committed), "the committed outputs are old: run `make notebooks`"
    assert seconds < MAX_SECONDS


def kinds(notebook: NotebookNode) -> list[tuple[int, str]]:
    """Which cell shows what kinds of output; files hold the kinds of one output in another order."""
    return sorted((number, kind) for number, kind, _ in run.texts(notebook))
