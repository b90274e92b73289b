"""The notebooks as committed: outputs that GitHub shows and that belong to the code, lines that can be changed."""

import ast
import re
from pathlib import Path

import pytest
from nbformat import NotebookNode

from notebooks import run

REPOSITORY = Path(__file__).parents[2]
PICTURE = re.compile(r"data:image/(png|svg\+xml)[;,]|<svg\b")

each = pytest.mark.parametrize("path", run.paths(), ids=lambda path: path.stem)


def code(notebook: NotebookNode) -> str:
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")


def prose(notebook: NotebookNode) -> str:
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def test_there_are_seven_in_their_order() -> None:
    assert [path.name[0] for path in run.paths()] == list("1234567")


@each
def test_outputs_belong_to_the_code_and_are_all_there(path: Path) -> None:
    notebook = run.read(path)
    assert notebook.metadata.cliffscope.sources == run.digest(notebook), "edited since it was run: `make notebooks`"
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    for cell in notebook.cells:
        if cell.cell_type == "code" and isinstance(ast.parse(cell.source).body[-1], ast.Expr):
            call = ast.unparse(ast.parse(cell.source).body[-1])
            # These do something and show nothing.
            assert cell.outputs or call.startswith(
                ("export(", "probe.save(", "disable_progress_bar(", "warnings.filterwarnings(")
            ), call


@each
def test_a_reader_sees_results_and_pictures_only(path: Path) -> None:
    notebook = run.read(path)
    assert run.problems(notebook) == []
    shown = list(run.texts(notebook))
    assert any(kind == "image/png" or (kind == "text/html" and PICTURE.search(text)) for _, kind, text in shown)
    assert path.stat().st_size < run.MAX_BYTES


@each
def test_the_file_is_what_the_runner_writes(path: Path) -> None:
    notebook = run.read(path)
    run.clean(notebook)
    assert path.read_text(encoding="utf-8") == run.written(notebook)
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)


@each
def test_the_two_lines_to_change_are_there_and_can_be_changed(path: Path) -> None:
    notebook = run.read(path)
    opening = notebook.cells[0].source
    assert opening.startswith("# ") and "- **Needs** " in opening and "- **Takes** " in opening
    table = opening.partition("**Two lines to change for your own model**")[2].partition("\n\n")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| `(.+)` \| `(.+)` \|$", table, flags=re.MULTILINE)
    assert len(rows) == 2
    lines = code(notebook).splitlines()
    imported = {
        name.asname or name.name
        for node in ast.walk(ast.parse(code(notebook)))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in node.names
    }
    for here, yours in rows:
        assert lines.count(here) == 1
        assert here.split(" = ")[0] == yours.split(" = ")[0]
        used = {node.id for node in ast.walk(ast.parse(yours)) if isinstance(node, ast.Name)}
        assert used - {here.split(" = ")[0]} <= imported


@each
def test_links_lead_somewhere(path: Path) -> None:
    targets = [target for target in re.findall(r"\]\(([^)\s]+)\)", prose(run.read(path))) if "://" not in target]
    assert targets
    missing = [target for target in targets if not (path.parent / target.partition("#")[0]).exists()]
    assert missing == []


@each
def test_the_text_teaches_and_cells_are_short(path: Path) -> None:
    notebook = run.read(path)
    assert re.search(r"What would make (it|the claim) wrong", prose(notebook))
    assert "**What this does not show.**" in notebook.cells[-1].source
    sources = [cell.source.splitlines() for cell in notebook.cells if cell.cell_type == "code"]
    assert max(map(len, sources)) <= 40
    assert max(len(line) for lines in sources for line in lines) <= 105  # longer ones run out of sight


def test_make_executes_them() -> None:
    assert "\nnotebooks: .venv/.installed\n\t$(BIN)/python -m notebooks.run\n" in (REPOSITORY / "Makefile").read_text()
