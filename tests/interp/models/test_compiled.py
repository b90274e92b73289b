"""Compiled models."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_compiled_models_are_read_and_changed_and_stay_compiled(tmp_path: Path) -> None:
    """In a process of its own: the run-time checks of signatures cannot be compiled."""
    script = Path(__file__).with_name("compiled_models.py")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.split() == ["in_place", "by_block"]
