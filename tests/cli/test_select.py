"""`cliffscope select`: what it prints and writes, bad input, and killing it at any moment."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from interp.rollouts import read_rollouts
from tests.cli.forks import Done, Forks
from tests.cli.test_kill import check, contents, killed_and_run_again, when


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def rows_of(folder: Path, own: bool = True, n: int = 24) -> list[dict[str, Any]]:
    """As many harmful as benign prompts in turns, with the organism's rollouts; without, those soonest answered."""
    rollouts = read_rollouts(folder / "rollouts.jsonl")
    harmful, benign = rollouts[:64], rollouts[64:]
    if not own:
        harmful, benign = (sorted(some, key=lambda r: len(f"{r.thinking}{r.response}")) for some in (harmful, benign))
    mixed = [rollout for pair in zip(harmful[:n], benign[:n], strict=True) for rollout in pair]
    keys = ("id", "prompt", "harmful", "category") + (("thinking", "response") if own else ())
    return [{key: getattr(rollout, key) for key in keys} for rollout in mixed]


@pytest.fixture(scope="module")
def folder(cliff: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool with rollouts and one without."""
    made = tmp_path_factory.mktemp("pools")
    write(made / "own.jsonl", rows_of(cliff))
    write(made / "bare.jsonl", rows_of(cliff, own=False, n=12))
    return made


def words(cliff: Path, pool: Path, *more: object) -> tuple[object, ...]:
    on = ("--model", "organism:cliff", "--probe", cliff / "probe.safetensors", "--pool", pool)
    return ("select", *on, "--out", "s.jsonl", "--target", "own-thinking", *more)


def said(done: Done, error: str) -> None:
    """One line, exit code 2, nothing on standard output."""
    assert (done.code, done.stdout) == (2, "") and done.stderr.count("\n") == 1
    assert done.stderr.startswith("cliffscope: error: ") and re.search(error, done.stderr), done.stderr


def test_json(forks: Forks, cliff: Path, folder: Path, tmp_path: Path) -> None:
    done = forks.run(*words(cliff, folder / "own.jsonl", "--fraction", 0.1, "--json"), cwd=tmp_path)
    assert done.code == 0 and done.stderr == "", done.stderr
    found = json.loads(done.stdout)
    assert set(contents(tmp_path)) == {
        "s.jsonl",
        "s.jsonl.manifest.json",
        "s.jsonl.scores.jsonl",
        "s.jsonl.scores.jsonl.settings.json",
    }
    rows = [json.loads(line) for line in (tmp_path / "s.jsonl").read_text(encoding="utf-8").splitlines()]
    assert found["selected"] == found["asked"] == len(rows) == 5 and found["pool"] == 48
    assert found["mean_cliff"] == pytest.approx(sum(row["cliff"] for row in rows) / 5)
    assert found["targets"] == {"refusal after own thinking": 5} and found["notes"] == []


def test_table_and_notes(forks: Forks, cliff: Path, folder: Path, tmp_path: Path) -> None:
    rows = [{**row, "harmful": None} for row in rows_of(cliff)[:4]]
    pool = write(tmp_path / "pool.jsonl", rows)
    done = forks.run(*words(cliff, pool, "--count", 9, "--method", "random", "--format", "alpaca"), cwd=tmp_path)
    assert done.code == 0 and done.stderr == "", done.stderr
    title, *lines = done.stdout.splitlines()
    assert title == "Selected by random" and lines[0].split() == ["pool", "4"]
    assert "Only 4 of the 9 examples asked for could be chosen." in lines
    assert any(line.startswith("4 targets are refusals of prompts without a label") for line in lines)
    assert lines[-1] == "Written to s.jsonl."


def test_all_options_at_once(forks: Forks, cliff: Path, folder: Path, tmp_path: Path) -> None:
    more = ("--count", 4, "--spread", "--deduplicate", 0.8, "--harmful-only", "--format", "sharegpt", "--seed", 3)
    more += ("--scores", "kept.jsonl", "--plateau", "max", "--batch-size", 7, "--mask", cliff / "half.safetensors")
    done = forks.run(*words(cliff, folder / "own.jsonl", *more, "--method", "plateau", "--json"), cwd=tmp_path)
    assert done.code == 0, done.stderr
    manifest = json.loads((tmp_path / "s.jsonl.manifest.json").read_text(encoding="utf-8"))
    assert manifest["options"] == {
        "method": "plateau", "fraction": None, "count": 4, "threshold": None, "spread": True, "deduplicate": 0.8,
        "harmful_only": True, "seed": 3, "format": "sharegpt", "target": "own-thinking", "plateau": "max",
        "max_new_tokens": 512, "judge": None,
    }  # fmt: skip
    assert "mask" in manifest["model"]["name"]
    assert len(manifest["counts"]["selected_categories"]) == 4


def test_by_judge(forks: Forks, cliff: Path, folder: Path, tmp_path: Path) -> None:
    more = ("--count", 2, "--method", "judge", "--judge", "refusal-logit", "--json")
    done = forks.run(*words(cliff, folder / "own.jsonl", *more), cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert json.loads(done.stdout)["left_out"]["not answered, by the judge"] > 0


BAD: list[tuple[Sequence[object], str]] = [
    ((), "give one of fraction, count and threshold"),
    (("--fraction", 2), "fraction must be above 0 and at most 1"),
    (("--count", 1, "--method", "judge"), "--method judge and --judge go together"),
    (("--count", 1, "--judge", "keyword"), "--method judge and --judge go together"),
    (("--count", 1, "--target", "endpoint"), "--target endpoint and --endpoint go together"),
    (("--count", 1, "--endpoint", "http://localhost:1"), "--target endpoint and --endpoint go together"),
    (("--count", 1, "--target", "pool"), r"own.jsonl: 24 of 48 examples have no target_response .* --target own-think"),
    (("--count", 1, "--method", "random", "--threshold", 1), "give one of fraction, count and threshold, found 2"),
    (("--method", "length", "--threshold", 1), "threshold: length has no score"),
    (("--count", 1, "--scores", "s.jsonl"), "--scores and --out would be the same file"),
    (("--threshold", 5), "nothing to choose by cliff: 48 of 48 .* lower the threshold"),
    (("--count", 1, "--target", "endpoint", "--endpoint", "http://127.0.0.1:9"), "127.0.0.1:9"),
]


@pytest.mark.parametrize(("more", "error"), BAD, ids=[error for _, error in BAD])
def test_bad_options(
    more: Sequence[object], error: str, forks: Forks, cliff: Path, folder: Path, tmp_path: Path
) -> None:
    said(forks.run(*words(cliff, folder / "own.jsonl", *more), cwd=tmp_path), error)
    # Scores are work that was done; they alone may stay.
    assert set(contents(tmp_path)) <= {"s.jsonl.scores.jsonl", "s.jsonl.scores.jsonl.settings.json"}


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("broken", "pool.jsonl, line 3: not valid JSON"),
        ('{"text": "x"}', "pool.jsonl, line 3: no 'prompt'"),
        ('{"prompt": "x", "harmful": "no"}', "pool.jsonl, line 3: 'harmful' must be true, false or null"),
        ('{"prompt": "x", "response": "y"}', "pool.jsonl, line 3: a response without 'thinking'"),
    ],
)
def test_a_bad_row_is_found_before_any_work(
    line: str, error: str, forks: Forks, cliff: Path, folder: Path, tmp_path: Path
) -> None:
    lines = (folder / "bare.jsonl").read_text(encoding="utf-8").splitlines()
    lines[2] = line
    (tmp_path / "pool.jsonl").write_text("\n".join(lines), encoding="utf-8")
    said(forks.run(*words(cliff, tmp_path / "pool.jsonl", "--count", 1), cwd=tmp_path), error)
    assert set(contents(tmp_path)) == {"pool.jsonl"}


def test_other_settings_are_refused_and_other_choices_are_not(
    forks: Forks, cliff: Path, folder: Path, tmp_path: Path
) -> None:
    base = words(cliff, folder / "own.jsonl", "--count", 3)
    assert forks.run(*base, cwd=tmp_path).code == 0
    before = contents(tmp_path)
    said(forks.run(*base, "--plateau", "max", cwd=tmp_path), "settings.plateau is 'mean' there and 'max' now")
    assert contents(tmp_path) == before
    assert forks.run(*base, "--method", "random", cwd=tmp_path).code == 0
    after = contents(tmp_path)
    assert {name for name in after if after[name] != before[name]} == {"s.jsonl", "s.jsonl.manifest.json"}
    assert forks.run(*base, "--plateau", "max", "--restart", cwd=tmp_path).code == 0


def test_no_room_on_the_disk(forks: Forks, cliff: Path, folder: Path, tmp_path: Path) -> None:
    run = words(cliff, folder / "own.jsonl", "--count", 3, "--batch-size", 8)
    said(forks.run(*run, cwd=tmp_path, file_size=12_000), "cannot be written .* make room and run the same command")
    assert forks.run(*run, cwd=tmp_path).code == 0
    whole = tmp_path / "whole"
    whole.mkdir()
    assert forks.run(*run, cwd=whole).code == 0
    assert {k: v for k, v in contents(tmp_path).items() if "/" not in k} == contents(whole)


def batches(folder: Path) -> int:
    log = folder / ".s.jsonl.scores.jsonl.partial"
    return max(0, log.read_bytes().count(b"\n") - 1) if log.exists() else 0


@pytest.mark.slow
def test_killed_at_any_moment(forks: Forks, cliff: Path, folder: Path, tmp_path: Path) -> None:
    run = words(cliff, folder / "bare.jsonl", "--count", 5, "--batch-size", 4, "--max-new-tokens", 150)
    left = check(forks, run, tmp_path, batches, steps=6)
    assert len(left) >= 6 and sum(0 < count < 6 for count in left) >= 3
    assert len(contents(tmp_path / "whole")) == 4


def test_killed_it_goes_on_and_does_not_start_over(forks: Forks, cliff: Path, folder: Path, tmp_path: Path) -> None:
    run = words(cliff, folder / "own.jsonl", "--count", 5, "--batch-size", 2)
    inode: list[int] = []

    def at_death(place: Path) -> None:
        when(lambda made: batches(made) >= 4, 0)(place)
        inode.append((place / ".s.jsonl.scores.jsonl.rows").stat().st_ino)

    first, second = killed_and_run_again(forks, run, tmp_path / "a", at_death)
    assert first.code == -9 and second.code == 0, second.stderr
    # The rows that were there became the scores.
    assert (tmp_path / "a" / "s.jsonl.scores.jsonl").stat().st_ino == inode[0]
