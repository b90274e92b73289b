"""Files of scores: resumable with the same bytes, refused where the settings differ, in bounded memory."""

import json
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from interp.errors import CliffscopeError
from interp.rollouts.job import settings_path
from selection.pool import PoolExample, survey_pool
from selection.score_files import ScoreFile, score_pool
from selection.scoring import Scored, Scorer
from tests.circuits.material import organism, organism_probe, organism_rollouts
from tests.selection.material import organism_pool, row_of, score, write_pool


class Stopped(Exception):
    pass


class Stops(Scorer):
    """A scorer that dies at its `left`-th batch, as if killed, and counts the batches."""

    left = 10**9
    calls = 0

    def score(self, examples: Any) -> list[Scored]:
        if Stops.left == 0:
            raise Stopped
        Stops.left -= 1
        Stops.calls += 1
        return super().score(examples)


@pytest.fixture(autouse=True)
def _reset() -> None:
    Stops.left, Stops.calls = 10**9, 0


def scorer(**options: Any) -> Stops:
    return Stops(organism("cliff"), organism_probe("cliff"), **options)


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return organism_pool(tmp_path_factory.mktemp("pool") / "pool.jsonl", 24)


def test_one_line_an_example_in_the_order_of_the_pool(pool: Path, tmp_path: Path) -> None:
    found = score_pool(scorer(), survey_pool(pool), tmp_path / "s.jsonl", batch_size=7)
    ids = [json.loads(line)["id"] for line in pool.read_text(encoding="utf-8").splitlines()]
    assert [score.id for score in found.scores] == ids and Stops.calls == 4
    assert set(files(tmp_path)) == {"s.jsonl", "s.jsonl.settings.json"}
    rollouts = {rollout.id: rollout for rollout in organism_rollouts("cliff")}
    for id, rollout in found.rollouts(ids[::5]).items():
        assert (rollout.thinking, rollout.response) == (rollouts[id].thinking, rollouts[id].response)
        assert found.prompt(id) == rollouts[id].prompt
    # Again: nothing is done.
    again = score_pool(scorer(), survey_pool(pool), tmp_path / "s.jsonl", batch_size=3)
    assert again.scores == found.scores and Stops.calls == 4
    assert ScoreFile(tmp_path / "s.jsonl").scores == found.scores


@pytest.mark.parametrize("done", [0, 1, 3])
@pytest.mark.parametrize("torn", [b"", b'{"id": "half'])
def test_killed_it_goes_on_to_the_same_bytes(done: int, torn: bytes, pool: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    survey = survey_pool(pool)
    score_pool(scorer(), survey, whole / "s.jsonl", batch_size=5)
    Stops.left = done
    with pytest.raises(Stopped):
        score_pool(scorer(), survey, killed / "s.jsonl", batch_size=5)
    assert set(files(killed)) == ({".s.jsonl.partial", ".s.jsonl.rows"} if done else set())
    for file in killed.iterdir():
        with file.open("ab") as end:
            end.write(torn)
    Stops.left, Stops.calls = 10**9, 0
    score_pool(scorer(), survey, killed / "s.jsonl", batch_size=5)
    assert Stops.calls == 5 - done
    assert files(killed) == files(whole)


def test_other_settings_are_refused_and_restart_starts_anew(pool: Path, tmp_path: Path) -> None:
    out, survey = tmp_path / "s.jsonl", survey_pool(pool)
    Stops.left = 1
    with pytest.raises(Stopped):
        score_pool(scorer(), survey, out, batch_size=5)
    Stops.left = 10**9
    before = files(tmp_path)
    for other, key in (
        (scorer(max_new_tokens=9), "settings.max_new_tokens is 512 there and 9 now"),
        (scorer(plateau="max"), "settings.plateau"),
        (scorer(loss_target="own-thinking"), "settings.loss_target"),
        (replace(scorer(), probe=organism_probe("cliff", 3)), "probe.sha256"),
    ):
        with pytest.raises(CliffscopeError, match=f"an unfinished run with other settings is there .{key}"):
            score_pool(other, survey, out, batch_size=5)
    with pytest.raises(CliffscopeError, match=r"pool.sha256"):
        score_pool(scorer(), replace(survey, sha256="0"), out)
    assert files(tmp_path) == before
    score_pool(scorer(plateau="max"), survey, out, batch_size=5, restart=True)
    with pytest.raises(CliffscopeError, match=r"is there already, made with other settings .settings.plateau is 'max'"):
        score_pool(scorer(), survey, out)
    # A restart that dies is gone on with, although a finished file is there.
    Stops.left = 2
    with pytest.raises(Stopped):
        score_pool(scorer(), survey, out, batch_size=5, restart=True)
    Stops.left, Stops.calls = 10**9, 0
    score_pool(scorer(), survey, out, batch_size=5)
    assert Stops.calls == 3 and json.loads(settings_path(out).read_text())["settings"]["plateau"] == "mean"


def test_columns_more_than_asked_for_are_no_obstacle(pool: Path, tmp_path: Path) -> None:
    out, survey = tmp_path / "s.jsonl", survey_pool(pool)
    made = score_pool(scorer(loss_target="own-thinking"), survey, out)
    assert score_pool(scorer(), survey, out).scores == made.scores
    # But an unfinished run goes on only as it began, or half the pool would have no loss.
    Stops.left = 1
    with pytest.raises(Stopped):
        score_pool(scorer(loss_target="own-thinking"), survey, tmp_path / "t.jsonl", batch_size=5)
    with pytest.raises(CliffscopeError, match="unfinished run with other settings"):
        score_pool(scorer(), survey, tmp_path / "t.jsonl")


def test_what_is_not_a_file_of_scores_is_not_replaced(pool: Path, tmp_path: Path) -> None:
    out, survey = tmp_path / "s.jsonl", survey_pool(pool)
    out.write_text("mine\n", encoding="utf-8")
    with pytest.raises(CliffscopeError, match="nothing says that it is a file of scores"):
        score_pool(scorer(), survey, out)
    assert out.read_text(encoding="utf-8") == "mine\n"
    score_pool(scorer(), survey, out, restart=True)
    with out.open("a", encoding="utf-8") as file:
        file.write("{}\n")
    with pytest.raises(CliffscopeError, match="was changed since it was made"):
        score_pool(scorer(), survey, out)
    with pytest.raises(CliffscopeError, match="line 25: not a line of scores"):
        ScoreFile(out)


def test_lost_rows_are_noticed(pool: Path, tmp_path: Path) -> None:
    out, survey = tmp_path / "s.jsonl", survey_pool(pool)
    Stops.left = 1
    with pytest.raises(Stopped):
        score_pool(scorer(), survey, out, batch_size=5)
    (tmp_path / ".s.jsonl.rows").write_bytes(b"")
    Stops.left = 10**9
    with pytest.raises(CliffscopeError, match="is shorter than it was; use --restart"):
        score_pool(scorer(), survey, out, batch_size=5)


def test_texts_are_not_kept_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """2 MB of rollouts pass through; what stays is the scores."""
    rollout = organism_rollouts("cliff")[0]
    text = "word " * 8000
    rows = (row_of(replace(rollout, id=f"id-{n}", thinking=text)) for n in range(50))
    pool = write_pool(tmp_path / "pool.jsonl", rows)

    def quick(self: Scorer, examples: list[PoolExample]) -> list[Scored]:
        return [Scored(score(e.id), e.rollout or rollout) for e in examples]

    monkeypatch.setattr(Scorer, "score", quick)
    tracemalloc.start()
    found = score_pool(scorer(), survey_pool(pool), tmp_path / "s.jsonl", batch_size=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found.scores) == 50 and (tmp_path / "s.jsonl").stat().st_size > 2_000_000
    assert peak < 700_000
