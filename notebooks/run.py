"""Executes the notebooks and writes what came out back into them: `python -m notebooks.run [NAME …]`.

Each runs in a folder of its own that is thrown away, in the Python that runs this, offline, on one CPU thread. What is
written is the same on every run: no times, no paths, nothing that needs JavaScript, so that GitHub shows it. A notebook
that fails, warns or shows what a reader should not see is left as it was.
"""

import hashlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode

FOLDER = Path(__file__).resolve().parent
TIMEOUT = 600
"""Seconds for one cell, on a machine that is busy with other things."""

SHOWN = ("text/html", "image/png", "text/markdown", "text/plain")
"""What GitHub shows of an output, the best first."""
LIVE = ("application/vnd.plotly.v1+json",)
"""What is shown in a live notebook in place of the static picture beside it."""
MAX_BYTES = 600_000

_ENVIRONMENT = {
    # Threads that compete for few cores are far slower than one.
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # On a GPU the last digits would differ.
    "CUDA_VISIBLE_DEVICES": "",
}
_ADDRESS = re.compile(r" at 0x[0-9a-f]{6,}")


def paths() -> list[Path]:
    """The notebooks, in their order."""
    return sorted(FOLDER.glob("[0-9]_*.ipynb"))


def read(path: Path) -> NotebookNode:
    """A notebook as it stands in its file."""
    return nbformat.read(path, as_version=4)


def execute(notebook: NotebookNode, folder: Path) -> None:
    """Runs all cells from the top, by this very Python; the outputs replace those of the notebook.

    Args:
        notebook: Changed in place.
        folder: Where it runs: relative paths are in here.

    Raises:
        CellExecutionError: If a cell raises.
    """
    with tempfile.TemporaryDirectory() as settings:
        kernel = AsyncKernelManager(
            kernel_name="python3",
            # Without folders it knows only the running interpreter, whatever other kernels this machine has.
            kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),
            transport="tcp" if os.name == "nt" else "ipc",
            connection_file=str(Path(settings) / "kernel.json"),
        )
        client = NotebookClient(
            notebook,
            km=kernel,
            timeout=TIMEOUT,
            coalesce_streams=True,
            record_timing=False,
            resources={"metadata": {"path": str(folder)}},
        )
        # Not the user's own startup files.
        client.execute(env={**os.environ, **_ENVIRONMENT, "IPYTHONDIR": settings}, cleanup_kc=True)


def clean(notebook: NotebookNode) -> None:
    """Leaves of outputs and metadata only what is the same on every run and shows everywhere; in place."""
    number = 0
    for cell in notebook.cells:
        cell.metadata = NotebookNode()
        if cell.cell_type != "code":
            continue
        number += 1
        cell.execution_count = number
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = number
            if "data" in output:
                output.metadata = NotebookNode()
                output.data = NotebookNode({kind: value for kind, value in output.data.items() if kind not in LIVE})
    notebook.metadata = NotebookNode(
        {
            "cliffscope": {"sources": digest(notebook)},
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )


def digest(notebook: NotebookNode) -> str:
    """SHA-256 of the code cells' sources: outputs belong to the code that the metadata has this of."""
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256(json.dumps(sources).encode()).hexdigest()


def texts(notebook: NotebookNode) -> Iterator[tuple[int, str, str]]:
    """Yields `(number of the code cell, kind, text)` of all outputs; `kind` is a stream, a MIME type or `error`."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                yield cell.execution_count, output.name, output.text
            elif output.output_type == "error":
                yield cell.execution_count, "error", f"{output.ename}: {output.evalue}"
            else:
                yield from ((cell.execution_count, kind, str(value)) for kind, value in output.data.items())


def problems(notebook: NotebookNode) -> list[str]:
    """What a reader should not see in the outputs, in words; none if all is well."""
    places = [str(place) for place in (FOLDER.parent, Path.home(), Path(tempfile.gettempdir()))]
    found = []
    for number, kind, text in texts(notebook):
        where = f"cell {number}, {kind}"
        if kind in ("stderr", "error"):
            found.append(f"{where}: {text.strip()[:300]}")
        if kind not in ("stdout", "stderr", "error", *SHOWN):
            found.append(f"{where}: shown nowhere but in a live notebook")
        if kind == "image/png":
            continue
        found += [f"{where}: the path {place}" for place in places if f"{place}/" in text]
        if match := _ADDRESS.search(text):
            found.append(f"{where}: an object's address,{match.group()}")
        if "Warning" in text:
            found.append(f"{where}: a warning, {text[max(0, text.index('Warning') - 60) :][:200]}")
        if "<script" in text:
            found.append(f"{where}: a script, which GitHub leaves out")
    return found


def written(notebook: NotebookNode) -> str:
    """The notebook as its file holds it."""
    return str(nbformat.writes(notebook)) + "\n"


def main(names: Sequence[str]) -> int:
    """Executes the notebooks whose names begin with one of these, or all; returns the exit code."""
    chosen = [path for path in paths() if not names or path.name.startswith(tuple(names))]
    failed = not chosen
    for path in chosen:
        notebook = read(path)
        with tempfile.TemporaryDirectory() as folder:
            execute(notebook, Path(folder))
        clean(notebook)
        wrong = problems(notebook)
        text = written(notebook)
        if len(text.encode()) > MAX_BYTES:
            wrong.append(f"{len(text.encode()):,} bytes; at most {MAX_BYTES:,}")
        for problem in wrong:
            print(f"{path.name}: {problem}", file=sys.stderr)
        if not wrong:
            path.write_text(text, encoding="utf-8")
            print(f"{path.name}: written")
        failed |= bool(wrong)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
