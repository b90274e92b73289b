"""A tiny checkpoint, files for the commands, and the command itself."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli import material
from tests.cli.forks import Forks


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    made = Forks()
    yield made
    made.close()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return material.checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny")


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path, forks: Forks) -> Path:
    """Rollouts and prompts, a probe of the last layer, and one of the final norm. Not to be written into."""
    folder = tmp_path_factory.mktemp("data")
    material.write_files(folder)
    for layer, name in (("3", "probe"), ("norm", "norm")):
        done = forks.run(
            *("probe", "fit", "--model", checkpoint, "--rollouts", folder / "rollouts.jsonl", "--layer", layer),
            *("--out", folder / f"{name}.safetensors"),
        )
        assert done.code == 0, done.stderr
    return folder
