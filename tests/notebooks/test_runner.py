"""The runner: which Python runs a notebook, what is left of its outputs, and what is refused."""

import sys
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from notebooks import run


def notebook_of(*outputs: NotebookNode) -> NotebookNode:
    cell = new_code_cell("1", outputs=list(outputs))
    return new_notebook(cells=[new_markdown_cell("text"), cell], metadata={"widgets": {"state": 1}})


def shown(kind: str, text: object) -> NotebookNode:
    return new_output("display_data", data={kind: text}, metadata={"at": "12:00"})


def test_what_differs_from_run_to_run_is_taken_out() -> None:
    result = new_output("execute_result", data={"text/plain": "1"}, execution_count=7)
    live = new_output("display_data", data={"text/html": "<img>", "application/vnd.plotly.v1+json": {"data": []}})
    notebook = notebook_of(result, live)
    notebook.cells[1].metadata = {"execution": {"iopub.execute_input": "2026"}}
    notebook.cells[1].execution_count = 7
    run.clean(notebook)
    assert notebook.cells[1].metadata == {} and notebook.cells[1].execution_count == 1
    assert notebook.cells[1].outputs[0].execution_count == 1
    assert dict(notebook.cells[1].outputs[1].data) == {"text/html": "<img>"}
    assert sorted(notebook.metadata) == ["cliffscope", "kernelspec", "language_info"]
    assert run.problems(notebook) == []
    once = run.written(notebook)
    run.clean(notebook)
    assert run.written(notebook) == once


@pytest.mark.parametrize(
    ("output", "problem"),
    [
        (new_output("stream", name="stderr", text="UserWarning: so"), "cell 1, stderr: UserWarning: so"),
        (
            new_output("stream", name="stdout", text="<Thing at 0x7f12ab34cd56>"),
            "an object's address, at 0x7f12ab34cd56",
        ),
        (new_output("stream", name="stdout", text=f"wrote {Path.home()}/x"), f"the path {Path.home()}"),
        (new_output("stream", name="stdout", text=f"wrote {run.FOLDER}/x"), f"the path {run.FOLDER.parent}"),
        (new_output("stream", name="stdout", text="A FutureWarning came"), "a warning, A FutureWarning came"),
        (new_output("error", ename="ValueError", evalue="no", traceback=[]), "cell 1, error: ValueError: no"),
        (shown("text/html", "<div></div><script>1</script>"), "a script, which GitHub leaves out"),
        (shown("application/vnd.jupyter.widget-view+json", {"model_id": "a"}), "shown nowhere but in a live notebook"),
    ],
)
def test_what_a_reader_should_not_see_is_found(output: NotebookNode, problem: str) -> None:
    notebook = notebook_of(output)
    run.clean(notebook)
    assert any(problem in found for found in run.problems(notebook))


def test_the_digest_is_of_the_code_alone() -> None:
    notebook = notebook_of()
    before = run.digest(notebook)
    notebook.cells[0].source = "other words"
    assert run.digest(notebook) == before
    notebook.cells[1].source = "2"
    assert run.digest(notebook) != before


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(run, "FOLDER", tmp_path / "notebooks")
    run.FOLDER.mkdir()
    return run.FOLDER


def test_it_runs_this_python_elsewhere_and_writes_the_same_twice(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = f"import sys\nfrom pathlib import Path\n\nPath('made').touch()\nsys.executable == {sys.executable!r}"
    path = folder / "1_small.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell(source, id="one")]), path)
    assert run.main(["1"]) == 0
    first = path.read_text()
    [cell] = run.read(path).cells
    assert cell.outputs[0].data["text/plain"] == "True" and cell.id == "one"
    assert run.main([]) == 0 and path.read_text() == first
    assert list(folder.iterdir()) == [path]
    assert "1_small.ipynb: written" in capsys.readouterr().out


def test_a_notebook_that_warns_is_left_as_it_was(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "1_warns.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("import warnings\n\nwarnings.warn('beware')")]), path)
    before = path.read_text()
    assert run.main([]) == 1
    assert path.read_text() == before
    assert "1_warns.ipynb: cell 1, stderr" in capsys.readouterr().err


def test_a_name_that_none_has_is_an_error(folder: Path) -> None:
    assert run.main(["9"]) == 1
