"""Killed at any moment and run again, a command ends with the bytes of an uninterrupted run, and leaves no more."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.forks import Done, Forks

MOMENTS = 10


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def killed_and_run_again(
    forks: Forks, words: tuple[object, ...], folder: Path, moment: Callable[[Path], object]
) -> tuple[Done, Done]:
    """Starts in an empty folder, kills after `moment` returns, and runs to the end."""
    folder.mkdir()
    run = forks.start(*words, cwd=folder)
    moment(folder)
    run.kill()
    return run.wait(), forks.run(*words, cwd=folder)


def after(seconds: float) -> Callable[[Path], object]:
    return lambda folder: time.sleep(seconds)


def when(is_time: Callable[[Path], bool], and_then: float) -> Callable[[Path], object]:
    """As soon as something is seen on the disk, and a little later."""

    def wait(folder: Path) -> None:
        end = time.monotonic() + 60
        while not is_time(folder):
            assert time.monotonic() < end, "it never came to that"
            time.sleep(0.001)
        time.sleep(and_then)

    return wait


def check(forks: Forks, words: tuple[object, ...], root: Path, seen: Callable[[Path], int], steps: int) -> list[int]:
    """Kills at ten moments: five spread over the whole run, five when so many of the steps are on the disk.

    Returns:
        How much was on the disk at each death.
    """
    rng = random.Random(0)
    whole = root / "whole"
    whole.mkdir()
    start = time.monotonic()
    done = forks.run(*words, cwd=whole)
    duration = time.monotonic() - start
    assert done.code == 0, done.stderr
    left: list[int] = []
    for number in range(MOMENTS):
        if number % 2:
            target = rng.randint(1, steps - 1)
            moment = when(lambda folder, target=target: seen(folder) >= target, rng.uniform(0, duration / steps))  # type: ignore[misc]
        else:
            moment = after(rng.uniform(0, duration))
        folder = root / str(number)
        at_death: list[int] = []

        def and_look(folder: Path, moment: Callable[[Path], object] = moment, at_death: list[int] = at_death) -> None:
            moment(folder)
            at_death.append(seen(folder))

        first, second = killed_and_run_again(forks, words, folder, and_look)
        assert first.code in (-9, 0), first.stderr
        assert second.code == 0, second.stderr
        assert second.stdout == done.stdout or first.code == 0
        assert contents(folder) == contents(whole)
        left += at_death if first.code == -9 else []
    return left


@pytest.mark.slow
def test_rollout(forks: Forks, checkpoint: Path, data: Path, tmp_path: Path) -> None:
    words = ("rollout", "--model", checkpoint, "--prompts", data / "prompts.csv", "--out", "r.jsonl")
    words += ("--max-new-tokens", 60, "--batch-size", 4, "--temperature", 1)

    def batches(folder: Path) -> int:
        log = folder / ".r.jsonl.partial"
        return max(0, log.read_bytes().count(b"\n") - 1) if log.exists() else 0

    left = check(forks, words, tmp_path, batches, steps=12)
    # The test would show nothing if every run had been killed before its first batch or after its last.
    assert len(left) >= 6 and sum(0 < count < 12 for count in left) >= 3
    assert set(contents(tmp_path / "whole")) == {"r.jsonl", "r.jsonl.settings.json"}


@pytest.mark.slow
def test_rollout_goes_on_and_does_not_start_over(forks: Forks, checkpoint: Path, data: Path, tmp_path: Path) -> None:
    words = ("rollout", "--model", checkpoint, "--prompts", data / "prompts.csv", "--out", "r.jsonl", "--json")
    words += ("--max-new-tokens", 60, "--batch-size", 4)
    log = tmp_path / "a" / ".r.jsonl.partial"
    moment = when(lambda folder: log.exists() and log.read_bytes().count(b"\n") > 4, 0)
    first, second = killed_and_run_again(forks, words, tmp_path / "a", moment)
    assert first.code == -9
    found = json.loads(second.stdout)
    assert found["resumed"] >= 16 and found["resumed"] + found["generated"] == 48


@pytest.mark.slow
def test_probe_sweep(forks: Forks, checkpoint: Path, data: Path, tmp_path: Path) -> None:
    words = ("probe", "sweep", "--model", checkpoint, "--rollouts", data / "rollouts.jsonl", "--out", "sweep")
    words += ("--positions", "inst,post_inst,think:0.5,think:1,close:-1")

    def layers(folder: Path) -> int:
        return len(list(folder.glob("sweep/.layers-*/layer-*.parquet")))

    left = check(forks, words, tmp_path, layers, steps=4)
    assert len(left) >= 6 and sum(count > 0 for count in left) >= 3
    assert set(contents(tmp_path / "whole")) == {"sweep/sweep.parquet", "sweep/sweep.html"}
    assert not list(tmp_path.rglob(".layers-*"))


@pytest.mark.slow
def test_a_sweep_takes_up_only_what_fits(forks: Forks, checkpoint: Path, data: Path, tmp_path: Path) -> None:
    """What a killed sweep with other options left is neither used nor left behind."""
    words = ("probe", "sweep", "--model", checkpoint, "--rollouts", data / "rollouts.jsonl", "--out", "sweep")
    words += ("--positions", "inst,close:-1")
    other = forks.start(*words, "--seed", 1, cwd=tmp_path)
    when(lambda folder: bool(list(folder.glob("sweep/.layers-*/layer-*.parquet"))), 0)(tmp_path)
    other.kill()
    assert other.wait().code == -9
    assert forks.run(*words, cwd=tmp_path).code == 0
    (tmp_path / "fresh").mkdir()
    assert forks.run(*words, cwd=tmp_path / "fresh").code == 0
    fresh = contents(tmp_path / "fresh")
    assert {name: data for name, data in contents(tmp_path).items() if not name.startswith("fresh")} == fresh


def test_interrupted_it_says_so_and_goes_on_next_time(
    forks: Forks, checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    words = ("rollout", "--model", checkpoint, "--prompts", data / "prompts.csv", "--out", "r.jsonl", "--json")
    words += ("--max-new-tokens", 60, "--batch-size", 4)
    run = forks.start(*words, cwd=tmp_path)
    when(lambda folder: (folder / ".r.jsonl.partial").exists(), 0.05)(tmp_path)
    os.kill(run.pid, signal.SIGINT)
    first, second = run.wait(), forks.run(*words, cwd=tmp_path)
    assert (first.code, first.stdout, first.stderr) == (130, "", "cliffscope: interrupted\n")
    assert json.loads(second.stdout)["rollouts"] == 48
    assert set(contents(tmp_path)) == {"r.jsonl", "r.jsonl.settings.json"}


def test_what_a_dead_process_was_writing_is_removed(forks: Forks, checkpoint: Path, data: Path, tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    abandoned = tmp_path / f".scores.parquet.{dead.pid}.partial"
    # Of a process that lives (this one), and a user's own.
    kept = [tmp_path / f".scores.parquet.{os.getpid()}.partial", tmp_path / ".scores.parquet.mine.partial"]
    for file in (abandoned, *kept):
        file.write_bytes(b"half")
    words = ("--model", checkpoint, "--rollouts", data / "rollouts.jsonl", "--probe", data / "probe.safetensors")
    assert forks.run("probe", "score", *words, "--out", tmp_path / "scores.parquet").code == 0
    assert set(tmp_path.iterdir()) == {*kept, tmp_path / "scores.parquet"}
