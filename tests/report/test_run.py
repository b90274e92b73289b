"""What is in a folder, whatever its files are called."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from circuits.curve import COLUMNS as CURVE
from circuits.head_scores import COLUMNS as HEADS
from interp.errors import CliffscopeError
from interp.rollouts import write_rollouts
from interventions.dose.response import COLUMNS as DOSES
from report.kinds import COLUMNS, FORMATS
from report.run import BASE, read_run
from tests.report.material import formatted, heads_table, rollouts, token_scores, write_run


def test_a_report_asks_for_columns_that_the_tables_have() -> None:
    for kind, columns in (("heads", HEADS), ("curve", CURVE), ("doses", DOSES)):
        assert set(COLUMNS[kind]) <= set(columns)
    assert set(FORMATS) >= {"cliffscope.heads", "cliffscope.curve", "cliffscope.doses", "cliffscope.evaluation"}


def test_every_file_is_known_by_its_content(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path))
    kinds = {file.path.name: file.kind for file in run.files}
    assert run.broken == []
    renamed = write_run(tmp_path / "renamed")
    for path in sorted(renamed.iterdir()):
        if path.name not in ("rollouts.jsonl", "run.json"):
            path.rename(path.with_name(f"x{len(list(renamed.glob('x*')))}{path.suffix}"))
    other = read_run(renamed)
    assert other.broken == []
    assert sorted(file.kind for file in other.files) == sorted(kinds.values())
    assert {table.facts["method"] for table in other.tables["heads"]} == {"ablation", "attribution"}
    # Scores are given to the answers whose text they spell.
    assert set(other.scores) == set(other.answers) and len(other.answers) == 2


def test_answers_and_scores_have_the_names_of_their_files(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path))
    assert list(run.answers) == [BASE, "masked"] and set(run.scores) == {BASE, "masked"}
    assert run.sources == {BASE: "rollouts.jsonl", "masked": "rollouts-masked.jsonl"}
    assert len(run.answers[BASE]) == 12


def test_parts_of_the_rollouts_are_no_other_answers(tmp_path: Path) -> None:
    write_run(tmp_path)
    write_rollouts(tmp_path / "benign.jsonl", [r for r in rollouts() if not r.harmful])
    run = read_run(tmp_path)
    assert list(run.answers) == [BASE, "masked"] and run.notes == []


def test_verdicts_of_a_judge_are_taken_for_the_answers_that_have_none(tmp_path: Path) -> None:
    made = rollouts()
    write_rollouts(tmp_path / "judged.jsonl", made)
    write_rollouts(tmp_path / "rollouts.jsonl", [replace(r, refused=None) if r.id != "r0" else r for r in made])
    run = read_run(tmp_path)
    assert list(run.answers) == [BASE] and list(run.answers[BASE].values()) == made
    assert run.notes == ["11 verdicts are those of judged.jsonl."]


def test_without_the_usual_name_the_rollouts_are_those_of_the_cliff(tmp_path: Path) -> None:
    write_run(tmp_path)
    (tmp_path / "rollouts.jsonl").rename(tmp_path / "z.jsonl")
    write_rollouts(tmp_path / "a.jsonl", [replace(r, id=f"other-{r.id}") for r in rollouts(20)])
    (tmp_path / "rollouts-masked.jsonl").unlink()
    run = read_run(tmp_path)
    assert run.sources == {BASE: "z.jsonl"}
    assert run.notes == ["a.jsonl holds rollouts of other prompts than z.jsonl; the explorer shows the latter."]


def test_the_scores_of_a_guard_are_no_scores_of_tokens(tmp_path: Path) -> None:
    write_run(tmp_path)
    guarded = pd.DataFrame({"id": ["r0"], "prompt": ["x"], "score": [0.5]})
    guarded.to_parquet(tmp_path / "scores-guard.parquet", index=False)
    run = read_run(tmp_path)
    assert run.broken == [] and set(run.scores) == {BASE, "masked"}


def test_scores_of_other_texts_are_refused(tmp_path: Path) -> None:
    write_run(tmp_path)
    other = [replace(r, response=f"Different {r.id}") for r in rollouts()]
    token_scores(other).to_parquet(tmp_path / "scores-masked.parquet", index=False)
    run = read_run(tmp_path)
    assert set(run.scores) == {BASE}
    (problem,) = run.broken
    assert problem.file == "scores-masked.parquet" and "not those of any rollouts" in problem.why


def test_one_bad_line_costs_one_rollout(tmp_path: Path) -> None:
    write_run(tmp_path)
    path = tmp_path / "rollouts.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    for bad in ('{"id": "r0", "prom', "[1]", json.dumps({"id": "r0", "prompt": "x", "thinking": 3, "response": ""})):
        path.write_text("\n".join([bad, *lines[1:]]), encoding="utf-8")
        run = read_run(tmp_path)
        (problem,) = run.broken
        assert problem.part == "rollouts" and problem.why.startswith("Line 1") and "other 11" in problem.why
        assert len(run.answers[BASE]) == 11


def test_the_first_table_of_a_method_is_shown(tmp_path: Path) -> None:
    write_run(tmp_path)
    formatted("heads", heads_table(), tmp_path / "zzz.parquet", method="ablation", facts={})
    from report.sections.heads import ranked

    assert [table.name for table in ranked(read_run(tmp_path))] == [
        "heads-ablation.parquet",
        "heads-attribution.parquet",
    ]


@pytest.mark.parametrize("made", ["missing", "file", "empty", "foreign"])
def test_what_is_no_run(tmp_path: Path, made: str) -> None:
    folder = tmp_path / "run"
    if made == "file":
        folder.write_text("")
    elif made != "missing":
        folder.mkdir()
    if made == "foreign":
        (folder / "notes.txt").write_text("hello")
    with pytest.raises(CliffscopeError, match="no such folder" if made in ("missing", "file") else "nothing here"):
        read_run(folder)
