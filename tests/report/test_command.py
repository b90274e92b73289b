"""`cliffscope report`."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from interp.cli.app import main
from tests.cli.forks import Done
from tests.cli.printed import payload, refusal, table
from tests.report.material import write_run

Run = Callable[..., Done]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command, in this process: it imports nothing that takes long."""

    def call(*words: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["cliffscope", "report", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        return Done(int(end.value.code or 0), *capsys.readouterr())

    return call


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"))


def test_it_writes_a_page_and_says_what_is_missing(folder: Path, tmp_path: Path, run: Run) -> None:
    (folder / "curve.parquet").unlink(missing_ok=True)
    (folder / "sweep.parquet").write_bytes(b"PAR1")
    said = table(run("--run", folder, "--out", tmp_path / "page.html"))
    assert "12" in said and "curve" in said and "sweep.parquet: Not a whole Parquet file" in said
    assert (tmp_path / "page.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    told = payload(run("--run", folder, "--json"))
    assert told["out"] == str(folder / "report.html") and told["bytes"] == (folder / "report.html").stat().st_size
    assert [entry["part"] for entry in told["missing"]] == ["curve"]
    assert [entry["file"] for entry in told["broken"]] == ["sweep.parquet"]


def test_bad_input_is_one_line(folder: Path, tmp_path: Path, run: Run) -> None:
    assert "no such folder" in refusal(run("--run", tmp_path / "nothing"))
    assert "nothing here" in refusal(run("--run", tmp_path))
    assert "file of the run" in refusal(run("--run", folder, "--out", folder / "rollouts.jsonl"))
    assert "is a folder" in refusal(run("--run", folder, "--out", tmp_path))
    assert list(tmp_path.iterdir()) == []
