"""The manifest of a run: the command written out, hashes of files and folders, versions."""

import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from interp.errors import CliffscopeError
from interp.files import hash_file
from interp.manifest import NAME, command_line, versions, write_manifest

MODEL: Any = SimpleNamespace(name="a model", fingerprint={"n_layers": "6"}, device="cpu", dtype="torch.float32")


def test_a_command_is_written_out_so_that_a_shell_takes_it() -> None:
    options = {"out": Path("my runs/a"), "n_harmful": 20, "page": True, "quiet": False, "mask": None}
    assert command_line("heads rank", options) == "cliffscope heads rank --out 'my runs/a' --n-harmful 20 --page"


def test_files_and_folders_are_hashed_and_named_from_the_run(tmp_path: Path) -> None:
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere.txt"
    (run / "model").mkdir(parents=True)
    for path, text in ((run / "b.txt", "b"), (run / "model" / "a.txt", "a"), (elsewhere, "c")):
        path.write_text(text, encoding="utf-8")
    (run / NAME).write_text("of an earlier run", encoding="utf-8")
    started = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=timezone(timedelta(hours=2)))
    files = [run / "b.txt", run / "model", run / "b.txt", run / NAME, elsewhere]
    written = write_manifest(
        run, command="cliffscope demo", started=started, seconds=1.26, model=MODEL, seed=3, files=files
    )
    assert written == json.loads((run / NAME).read_text(encoding="utf-8"))
    assert (written["format"], written["started"], written["seconds"]) == (
        "cliffscope.run",
        "2026-01-02T01:04:05Z",
        1.3,
    )
    assert (written["dtype"], written["seed"], written["model"]["name"]) == ("float32", 3, "a model")
    assert {entry["path"] for entry in written["files"]} == {"b.txt", "model/a.txt", elsewhere.as_posix()}
    b = next(entry for entry in written["files"] if entry["path"] == "b.txt")
    assert b == {"path": "b.txt", "sha256": hash_file(run / "b.txt"), "bytes": 1}
    assert b["sha256"] == "3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d"


def test_a_file_that_is_not_there_is_an_error_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(CliffscopeError, match=r"gone\.txt: cannot be read"):
        write_manifest(
            tmp_path,
            command="",
            started=datetime.now(UTC),
            seconds=0,
            model=MODEL,
            seed=0,
            files=[tmp_path / "gone.txt"],
        )
    assert not (tmp_path / NAME).exists()


def test_versions_name_what_figures_depend_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("interp.manifest.LIBRARIES", ("cliffscope", "no-such-library"))
    found = versions()
    assert found["cliffscope"] and found["no-such-library"] is None and found["python"]
