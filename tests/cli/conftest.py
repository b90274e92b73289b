"""A tiny checkpoint, the organisms, files for the commands, and the command itself."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from interp.rollouts import write_rollouts
from interventions.masks import HeadMask
from tests.circuits.material import organism, organism_probe, organism_rollouts
from tests.cli import bad_input, material
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
    """Rollouts and prompts, probes of the last layer and the final norm, heads, a mask. Not to be written into."""
    folder = tmp_path_factory.mktemp("data")
    material.write_files(folder)
    material.write_heads_and_mask(folder, checkpoint)
    for layer, name in (("3", "probe"), ("norm", "norm")):
        done = forks.run(
            *("probe", "fit", "--model", checkpoint, "--rollouts", folder / "rollouts.jsonl", "--layer", layer),
            *("--out", folder / f"{name}.safetensors"),
        )
        assert done.code == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def cliff(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of `organism:cliff`, not to be written into.

    96 judged rollouts and a probe, 24 of the prompts, and masks of the planted heads: both, and one of them.
    """
    folder = tmp_path_factory.mktemp("cliff")
    model, rollouts = organism("cliff"), organism_rollouts("cliff")
    write_rollouts(folder / "rollouts.jsonl", rollouts)
    organism_probe("cliff").save(folder / "probe.safetensors")
    material.write_prompts(folder / "prompts.csv", rollouts[:64:4] + rollouts[64::4])
    HeadMask.build(model, [(3, 1), (4, 5)]).save(folder / "mask.safetensors")
    HeadMask.build(model, [(3, 1)], gamma=0.5).save(folder / "half.safetensors")
    return folder


@pytest.fixture(scope="session")
def aligned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of `organism:aligned`, not to be written into: rollouts, and benign ones feigned to be complied."""
    folder = tmp_path_factory.mktemp("aligned")
    rollouts = organism_rollouts("aligned")
    write_rollouts(folder / "rollouts.jsonl", rollouts)
    feigned = [replace(rollout, harmful=True) if rollout.outcome == "benign" else rollout for rollout in rollouts]
    write_rollouts(folder / "feigned.jsonl", feigned)
    organism_probe("aligned").save(folder / "probe.safetensors")
    return folder


@pytest.fixture(scope="session")
def heads(tmp_path_factory: pytest.TempPathFactory, cliff: Path, forks: Forks) -> Path:
    """The heads of `organism:cliff`, ranked by ablation."""
    out = tmp_path_factory.mktemp("heads") / "heads.parquet"
    files = ("--probe", cliff / "probe.safetensors", "--rollouts", cliff / "rollouts.jsonl")
    done = forks.run("heads", "rank", "--model", "organism:cliff", *files, "--out", out)
    assert done.code == 0, done.stderr
    return out


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> dict[str, str]:
    """The good checkpoint and bad ones, by name."""
    return bad_input.checkpoints(tmp_path_factory.mktemp("models"), checkpoint)


@pytest.fixture
def folder(tmp_path: Path, data: Path) -> Path:
    """A working folder with good files."""
    for name in ("rollouts.jsonl", "prompts.csv", "probe.safetensors", "heads.parquet", "mask.safetensors"):
        (tmp_path / name).write_bytes((data / name).read_bytes())
    return tmp_path
