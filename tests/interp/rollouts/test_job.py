"""The rollout job: killed at any moment and run again, it leaves the bytes of an uninterrupted run."""

import errno
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from interp.errors import CliffscopeError
from interp.judges import Judgement, KeywordJudge
from interp.rollouts import Rollout, job_log, read_rollouts
from interp.rollouts import job as rollout_job
from interp.rollouts.job import prompt_seed, run, settings_path
from interp.rollouts.prompts import Prompt, PromptSet

SETTINGS = {"model": {"name": "fake", "layers": 2}, "temperature": 0.0, "tags": ("<a>", "</a>")}


def prompt_set(count: int = 10) -> PromptSet:
    rng = random.Random(1)
    return PromptSet(tuple(Prompt(f"p{i}", "word " * rng.randint(1, 30), i % 2 == 0) for i in range(count)), "test")


class Generator:
    """Answers deterministically, by the prompt and by who shares its batch; notes what it was asked."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.batches: list[list[str]] = []
        self.fail_at = fail_at

    def __call__(self, prompts: Sequence[Prompt]) -> list[Rollout]:
        if len(self.batches) == self.fail_at:
            raise KeyboardInterrupt
        self.batches.append([prompt.id for prompt in prompts])
        shared = "+".join(sorted(prompt.id for prompt in prompts))
        # In another order than asked.
        return [p.rollout("hm\u2028", f"Sorry {shared}" if p.harmful else None, model="fake") for p in prompts[::-1]]


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_uninterrupted_job(tmp_path: Path) -> None:
    prompts, generate, out = prompt_set(), Generator(), tmp_path / "new" / "r.jsonl"
    result = run(prompts, generate, out, SETTINGS, batch_size=4, judge=KeywordJudge())
    rollouts = read_rollouts(out)
    assert [r.id for r in rollouts] == [p.id for p in prompts]
    assert [r.refused for r in rollouts] == [True if p.harmful else None for p in prompts]
    assert (result.path, list(result.rollouts), result.generated, result.resumed) == (out, rollouts, 10, 0)
    assert not result.was_complete
    assert files(out.parent) == ["r.jsonl", "r.jsonl.settings.json"]
    # Longest prompts first, so that a lack of memory shows at once and batches are even.
    lengths = {prompt.id: len(prompt.text) for prompt in prompts}
    asked = [lengths[name] for batch in generate.batches for name in batch]
    assert [len(batch) for batch in generate.batches] == [4, 4, 2]
    assert asked == sorted(asked, reverse=True)
    record = json.loads(settings_path(out).read_text())
    assert record["settings"]["model"] == {"name": "fake", "layers": 2}
    assert record["prompts"] == {"count": 10, "sha256": prompts.fingerprint}
    assert record["judge"] == "keyword:cliffscope:v1"


@pytest.mark.parametrize("fail_at", range(4))
def test_an_interrupted_job_goes_on(tmp_path: Path, fail_at: int) -> None:
    prompts, whole = prompt_set(), Generator()
    run(prompts, whole, tmp_path / "whole.jsonl", SETTINGS, batch_size=3)
    first, second = Generator(fail_at=fail_at), Generator()
    out = tmp_path / "r.jsonl"
    with pytest.raises(KeyboardInterrupt):
        run(prompts, first, out, SETTINGS, batch_size=3)
    assert not out.exists()
    result = run(prompts, second, out, SETTINGS, batch_size=3)
    assert first.batches + second.batches == whole.batches
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert result.resumed == 3 * fail_at and result.generated == 10 - 3 * fail_at
    assert settings_path(out).read_bytes() == settings_path(tmp_path / "whole.jsonl").read_bytes()
    assert not (tmp_path / ".r.jsonl.partial").exists()


def test_a_job_cut_at_any_byte_of_its_log_goes_on(tmp_path: Path) -> None:
    prompts = prompt_set(6)
    run(prompts, Generator(), tmp_path / "whole.jsonl", SETTINGS, batch_size=2)
    with pytest.raises(KeyboardInterrupt):
        run(prompts, Generator(fail_at=1), tmp_path / "r.jsonl", SETTINGS, batch_size=2)
    log = (tmp_path / ".r.jsonl.partial").read_bytes()
    ends = [i + 1 for i, byte in enumerate(log) if byte == ord("\n")]
    cuts = {0, 1, *(end + step for end in ends for step in (-1, 0, 1)), *range(0, len(log), 37)}
    for cut in sorted(cut for cut in cuts if cut <= len(log)):
        out = tmp_path / "cut.jsonl"
        out.unlink(missing_ok=True)
        (tmp_path / ".cut.jsonl.partial").write_bytes(log[:cut])
        # Cut again, so that what is appended to a torn log is read as well.
        with pytest.raises(KeyboardInterrupt):
            run(prompts, Generator(fail_at=1), out, SETTINGS, batch_size=2)
        generate = Generator()
        run(prompts, generate, out, SETTINGS, batch_size=2)
        assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
        assert len(generate.batches) == (1 if cut == len(log) else 2)


def test_a_finished_job_does_nothing(tmp_path: Path) -> None:
    prompts, out = prompt_set(), tmp_path / "r.jsonl"
    first = run(prompts, Generator(), out, SETTINGS)
    before = out.stat().st_mtime_ns
    generate = Generator()
    again = run(prompts, generate, out, SETTINGS)
    assert generate.batches == [] and again.was_complete
    assert again.rollouts == first.rollouts
    assert out.stat().st_mtime_ns == before
    assert files(tmp_path) == ["r.jsonl", "r.jsonl.settings.json"]


def test_a_death_between_the_last_steps_is_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts, out = prompt_set(), tmp_path / "r.jsonl"
    run(prompts, Generator(), tmp_path / "whole.jsonl", SETTINGS)
    real = rollout_job.write_atomically

    def die_before(*_: object) -> None:
        raise KeyboardInterrupt

    def die_after(*arguments: object) -> None:
        real(*arguments)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    for die in (die_before, die_after):
        monkeypatch.setattr(rollout_job, "write_atomically", die)
        with pytest.raises(KeyboardInterrupt):
            run(prompts, Generator(), out, SETTINGS)
        assert (tmp_path / ".r.jsonl.partial").exists()
        monkeypatch.setattr(rollout_job, "write_atomically", real)
        generate = Generator()
        run(prompts, generate, out, SETTINGS)
        assert generate.batches == []
        assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
        assert not (tmp_path / ".r.jsonl.partial").exists()
        out.unlink()
        settings_path(out).unlink()


class NamedJudge:
    name = "other"

    def judge(self, rollouts: Sequence[Rollout]) -> list[Judgement]:
        return [Judgement(None, None, "")] * len(rollouts)


@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        ({"settings": {**SETTINGS, "temperature": 0.7}}, "settings.temperature is 0.0 there and 0.7 now"),
        ({"settings": {**SETTINGS, "model": {"name": "big", "layers": 2}}}, 'settings.model.name is "fake" there'),
        ({"settings": {**SETTINGS, "new": 1}}, "settings.new is null there and 1 now"),
        ({"settings": {"temperature": 0.0, "tags": ("<a>", "</a>")}}, 'settings.model.name is "fake" there and null'),
        ({"prompts": prompt_set(9)}, "prompts.count is 10 there and 9 now"),
        ({"judge": NamedJudge()}, 'judge is null there and "other" now'),
    ],
)
def test_other_settings_are_refused(tmp_path: Path, changed: dict[str, object], difference: str) -> None:
    out = tmp_path / "r.jsonl"
    base: dict[str, object] = {"prompts": prompt_set(), "generate": Generator(), "out": out, "settings": SETTINGS}
    with pytest.raises(KeyboardInterrupt):
        run(**{**base, "generate": Generator(fail_at=1)}, batch_size=4)  # type: ignore[arg-type]
    log = (tmp_path / ".r.jsonl.partial").read_bytes()
    with pytest.raises(CliffscopeError) as caught:
        run(**{**base, **changed})  # type: ignore[arg-type]
    assert "an unfinished run with other settings is there" in str(caught.value)
    assert difference in str(caught.value) and "--restart" in str(caught.value)
    assert (tmp_path / ".r.jsonl.partial").read_bytes() == log
    run(**base)  # type: ignore[arg-type]
    finished = out.read_bytes()
    with pytest.raises(CliffscopeError) as caught:
        run(**{**base, **changed})  # type: ignore[arg-type]
    assert "is there already, made with other settings" in str(caught.value)
    assert difference in str(caught.value)
    assert out.read_bytes() == finished
    assert files(tmp_path) == ["r.jsonl", "r.jsonl.settings.json"]


def test_the_batch_size_may_change(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(prompt_set(), Generator(fail_at=1), tmp_path / "r.jsonl", SETTINGS, batch_size=4)
    generate = Generator()
    run(prompt_set(), generate, tmp_path / "r.jsonl", SETTINGS, batch_size=1)
    assert len(generate.batches) == 6
    assert [r.id for r in read_rollouts(tmp_path / "r.jsonl")] == [p.id for p in prompt_set()]


def test_files_that_no_job_made_or_that_were_changed_are_kept(tmp_path: Path) -> None:
    out = tmp_path / "r.jsonl"
    out.write_text("mine\n")
    with pytest.raises(CliffscopeError, match="nothing says how it was made"):
        run(prompt_set(), Generator(), out, SETTINGS)
    assert out.read_text() == "mine\n" and files(tmp_path) == ["r.jsonl"]
    run(prompt_set(), Generator(), out, SETTINGS, restart=True)
    with out.open("a") as file:
        file.write("\n")
    with pytest.raises(CliffscopeError, match="was changed since it was made"):
        run(prompt_set(), Generator(), out, SETTINGS)


def test_restart_replaces_the_old_file_only_at_the_end(tmp_path: Path) -> None:
    out, other = tmp_path / "r.jsonl", {**SETTINGS, "temperature": 1.0}
    run(prompt_set(), Generator(), out, SETTINGS)
    old = out.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        run(prompt_set(9), Generator(fail_at=2), out, other, batch_size=3, restart=True)
    assert out.read_bytes() == old
    # The restart was asked for; to go on with it needs no second one.
    generate = Generator()
    run(prompt_set(9), generate, out, other, batch_size=3)
    assert len(generate.batches) == 1
    assert len(read_rollouts(out)) == 9 and out.read_bytes() != old


def test_restart_throws_away_what_was_left(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(prompt_set(), Generator(fail_at=1), tmp_path / "r.jsonl", SETTINGS, batch_size=4)
    generate = Generator()
    run(prompt_set(), generate, tmp_path / "r.jsonl", SETTINGS, batch_size=4, restart=True)
    assert len(generate.batches) == 3


def test_a_damaged_log_is_named(tmp_path: Path) -> None:
    log, out = tmp_path / ".r.jsonl.partial", tmp_path / "r.jsonl"
    with pytest.raises(KeyboardInterrupt):
        run(prompt_set(), Generator(fail_at=1), out, SETTINGS, batch_size=4)
    good = log.read_bytes()
    header, batch = good.splitlines(keepends=True)
    for bad, message in ((header + b"\0\0\n" + batch, "line 2: damaged"), (good + batch, "line 3: damaged")):
        log.write_bytes(bad)
        with pytest.raises(CliffscopeError, match=message):
            run(prompt_set(), Generator(), out, SETTINGS)
    assert not out.exists()


@pytest.mark.parametrize(
    "wrong",
    [lambda ps: [], lambda ps: [ps[0].rollout("", "x")] * len(ps), lambda ps: [Rollout("zz", "p", "", "x")] * len(ps)],
)
def test_a_generator_that_loses_prompts_is_caught(tmp_path: Path, wrong: object) -> None:
    with pytest.raises(CliffscopeError, match="must give one for each prompt"):
        run(prompt_set(), wrong, tmp_path / "r.jsonl", SETTINGS)  # type: ignore[arg-type]
    assert not (tmp_path / "r.jsonl").exists()


def test_bad_arguments(tmp_path: Path) -> None:
    with pytest.raises(CliffscopeError, match="no prompts"):
        run(PromptSet(()), Generator(), tmp_path / "r.jsonl", SETTINGS)
    with pytest.raises(CliffscopeError, match="batch size must be at least 1"):
        run(prompt_set(), Generator(), tmp_path / "r.jsonl", SETTINGS, batch_size=0)
    with pytest.raises(CliffscopeError, match="is a folder"):
        run(prompt_set(), Generator(), tmp_path, SETTINGS)
    with pytest.raises(CliffscopeError, match="cannot be written as JSON"):
        run(prompt_set(), Generator(), tmp_path / "r.jsonl", {"x": object()})
    (tmp_path / "file").write_text("")
    with pytest.raises(CliffscopeError, match=r"cannot be written \((Not a directory|File exists)\)"):
        run(prompt_set(), Generator(), tmp_path / "file" / "r.jsonl", SETTINGS)
    assert files(tmp_path) == ["file"]


def test_a_full_disk_loses_nothing_that_was_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write

    def full(descriptor: int, data: bytes) -> int:
        if os.fstat(descriptor).st_size > 900:
            # As the system does it: what still fits is written first.
            real(descriptor, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data)

    monkeypatch.setattr(job_log.os, "write", full)
    with pytest.raises(CliffscopeError, match=r"r\.jsonl: cannot be written \(No space left on device\)"):
        run(prompt_set(), Generator(), tmp_path / "r.jsonl", SETTINGS, batch_size=2)
    assert files(tmp_path) == [".r.jsonl.partial"]
    monkeypatch.setattr(job_log.os, "write", real)
    generate = Generator()
    run(prompt_set(), generate, tmp_path / "r.jsonl", SETTINGS, batch_size=2)
    assert 0 < len(generate.batches) < 5
    run(prompt_set(), Generator(), tmp_path / "whole.jsonl", SETTINGS, batch_size=2)
    assert (tmp_path / "r.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


# A slow job in a process of its own, which writes a line to standard output when it has begun.
SCRIPT = """
import sys, time
from interp.errors import CliffscopeError
from interp.rollouts.prompts import Prompt, PromptSet
from interp.rollouts.job import run
prompts = PromptSet(tuple(Prompt(f"p{i}", "word " * (i * 7 % 13 + 1)) for i in range(40)))
def generate(batch):
    print("batch", flush=True)
    time.sleep(float(sys.argv[2]))
    return [p.rollout("t" * 2000, "+".join(q.id for q in batch)) for p in batch]
try:
    run(prompts, generate, sys.argv[1], {"model": "slow"}, batch_size=2)
except CliffscopeError as error:
    sys.exit(f"error: {error}")
"""


def start(out: Path, delay: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT, str(out), str(delay)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_killed_at_ten_random_moments_it_gives_the_same_file(tmp_path: Path) -> None:
    rng = random.Random(0)
    assert start(tmp_path / "whole.jsonl", 0).communicate(timeout=60)[1] == ""
    killed = 0
    for moment in range(10):
        out = tmp_path / f"{moment}.jsonl"
        for _ in range(rng.randint(1, 3)):
            job = start(out, 0.02)
            assert job.stdout is not None
            # From the moment that the first batch runs; a whole run takes about 0.5 s.
            job.stdout.readline()
            time.sleep(rng.uniform(0, 0.3))
            job.kill()
            _, errors = job.communicate(timeout=60)
            assert errors == ""
            killed += job.returncode == -signal.SIGKILL
        assert start(out, 0).communicate(timeout=60)[1] == ""
        assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
        assert not (tmp_path / f".{out.name}.partial").exists()
    assert killed >= 10


@pytest.mark.slow
def test_two_runs_of_one_output_exclude_each_other(tmp_path: Path) -> None:
    first = start(tmp_path / "r.jsonl", 0.2)
    try:
        assert first.stdout is not None
        first.stdout.readline()
        second = start(tmp_path / "r.jsonl", 0)
        _, errors = second.communicate(timeout=60)
        assert second.returncode == 1
        assert "r.jsonl: another run is writing it" in errors
    finally:
        first.kill()
        first.communicate(timeout=60)
    # The lock ended with its process.
    third = start(tmp_path / "r.jsonl", 0)
    assert third.communicate(timeout=60)[1] == "" and third.returncode == 0


def test_a_real_limit_of_the_system_is_one_line(tmp_path: Path) -> None:
    job = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "r.jsonl"), "0"],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000)),
        timeout=60,
        check=False,
    )
    assert job.returncode == 1
    assert job.stderr.startswith(f"error: {tmp_path / 'r.jsonl'}: cannot be written (File too large)")
    assert job.stderr.count("\n") == 1
    assert files(tmp_path) == [".r.jsonl.partial"]


def test_seeds_of_prompts() -> None:
    seeds = {prompt_seed(seed, f"p{i}") for seed in range(3) for i in range(1000)}
    assert len(seeds) == 3000
    assert all(0 <= seed < 2**31 for seed in seeds)
    # Pinned, from `printf 0:p | sha256sum`: results must not change between versions.
    assert prompt_seed(0, "p") == 1097925317
