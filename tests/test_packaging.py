"""The wheel holds everything: installed elsewhere and run from another folder, the organism is there."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest


@pytest.mark.slow
def test_the_wheel_runs_from_another_folder(tmp_path: Path) -> None:
    root = Path(__file__).parents[1]
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    subprocess.run([*build, str(root)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("cliffscope-*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(site)
    assert {name.split("/")[0] for name in names} >= {"interp", "probes", "interventions", "circuits", "selection"}
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/"))]
    beside = (path for folder in ("assets", "templates") for path in (root / "report" / folder).iterdir())
    assert {f"report/{path.parent.name}/{path.name}" for path in beside} <= set(names)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(site)}

    def run(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, *command], cwd=elsewhere, env=environment, check=True, capture_output=True, text=True
        )
        return done.stdout

    assert str(site) in run("-c", "import interp; print(interp.__file__)")
    found = json.loads(run("-m", "interp.cli", "inspect", "--model", "organism:cliff", "--json"))
    assert found["layers"] == 6
    probe = "from interp.judges import KeywordJudge, RefusalOpenings; KeywordJudge(); RefusalOpenings.bundled()"
    run("-c", probe)
