"""`cliffscope guard fit|score`, `rollout --guard` and `steer apart`: what they print and write, killed, bad input."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from interp.rollouts import read_rollouts
from interp.rollouts.prompts import Prompt, load_prompts
from probes.guard import REFUSAL, GuardFigures, LatentGuard
from tests.circuits.material import organism
from tests.cli.bad_input import ROLLOUT, Case, Spoil, check_usage, octets, on, only, text, truncated
from tests.cli.forks import Forks
from tests.cli.printed import payload, refusal, table
from tests.cli.test_kill import contents, killed_and_run_again, when
from tests.probes.guard.material import prompts

ON = ("--model", "organism:cliff", "--device", "cpu")


def write(path: Path, chosen: Sequence[Prompt], *, labelled: bool = True) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "prompt", *(["harmful", "category"] if labelled else [])])
        for p in chosen:
            rows.writerow([p.id, p.text, *([p.harmful, p.category] if labelled else [])])
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Path:
    """250 prompts, 24 other ones, a guard fitted on the first. Not to be written into."""
    folder = tmp_path_factory.mktemp("guard")
    write(folder / "prompts.csv", prompts())
    write(folder / "harmful.csv", prompts()[:150], labelled=False)
    write(folder / "benign.csv", prompts()[150:], labelled=False)
    write(folder / "few.csv", [*prompts()[:12], *prompts()[150:162]])
    write(folder / "bare.csv", prompts()[:4], labelled=False)
    done = forks.run("guard", "fit", *ON, "--prompts", folder / "prompts.csv", "--out", folder / "guard.safetensors")
    assert done.code == 0, done.stderr
    return folder


def test_fit_prints_the_figures_that_the_file_holds(forks: Forks, files: Path, tmp_path: Path) -> None:
    given = ("--prompts", files / "prompts.csv", "--folds", 4, "--out", tmp_path / "g.safetensors")
    found = payload(forks.run("guard", "fit", *ON, *given, "--json"))
    guard = LatentGuard.load(tmp_path / "g.safetensors")
    assert found["threshold"] == guard.threshold and found["layers"] == list(guard.layers) == list(range(6))
    assert found["held_out"] == guard.training["held_out"] and found["held_out_by"] == "category"
    assert found["held_out"]["auroc"] >= 0.98 and found["held_out"]["auroc_low"] >= 0.97
    assert (found["n_harmful"], found["n_benign"], found["unlabelled"]) == (150, 100, 0)
    assert found["warning"] is None and "5.0%" in found["promise"]
    shown = table(forks.run("guard", "fit", *ON, *given))
    for words in ("AUROC, held-out categories", "harmful missed, held-out categories", "blackmail", "At most 5.0%"):
        assert words in shown


def test_two_files_of_two_sources_are_warned_of(forks: Forks, files: Path, tmp_path: Path) -> None:
    given = ("--prompts", files / "harmful.csv", "--benign", files / "benign.csv", "--method", "probe")
    options = ("--layers", "2,3", "--balanced", "--out", tmp_path / "g.safetensors")
    done = forks.run("guard", "fit", *ON, *given, *options)
    shown = table(done)
    assert "Warning: harmful prompts come from harmful.csv and benign ones from benign.csv" in shown
    assert "AUROC, held-out prompts" in shown and "promises nothing" in shown
    assert LatentGuard.load(tmp_path / "g.safetensors").method == "probe"


def test_rollouts_in_place_of_prompts(forks: Forks, cliff: Path, tmp_path: Path) -> None:
    given = ("--rollouts", cliff / "rollouts.jsonl", "--false-positives", 0.2, "--folds", 3)
    found = payload(forks.run("guard", "fit", *ON, *given, "--out", tmp_path / "g.safetensors", "--json"))
    assert (found["n_harmful"], found["n_benign"]) == (64, 32) and found["false_positives"] == 0.2


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_score_is_the_python_interface(forks: Forks, files: Path, tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"scores.{ending}"
    given = ("--guard", files / "guard.safetensors", "--prompts", files / "few.csv", "--out", out)
    found = payload(forks.run("guard", "score", *ON, *given, "--json"))
    few = list(load_prompts(files / "few.csv"))
    guard = LatentGuard.load(files / "guard.safetensors")
    expected = guard.score(organism("cliff"), few)
    rows = (
        pd.read_parquet(out).to_dict("records")
        if ending == "parquet"
        else [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    )
    assert [row["id"] for row in rows] == [prompt.id for prompt in few]
    np.testing.assert_allclose([row["score"] for row in rows], expected, atol=1e-5)
    assert [row["flagged"] for row in rows] == (expected > guard.threshold).tolist()
    figures = GuardFigures.of(few, expected, expected > guard.threshold)
    assert found["auroc"] == figures.auroc == 1.0 and found["flagged"] == 12
    assert found["missed_harmful"]["wrong"] == found["flagged_benign"]["wrong"] == 0


def test_score_without_labels_has_no_figures(forks: Forks, files: Path, tmp_path: Path) -> None:
    given = ("--guard", files / "guard.safetensors", "--prompts", files / "bare.csv", "--out", tmp_path / "s.jsonl")
    shown = table(forks.run("guard", "score", *ON, *given))
    assert "flagged    4" in shown and "AUROC" not in shown


def test_rollout_behind_a_guard(forks: Forks, files: Path, tmp_path: Path) -> None:
    given = ("--prompts", files / "few.csv", "--max-new-tokens", 300, "--out", "r.jsonl")
    guarded = ("rollout", *ON, *given, "--guard", files / "guard.safetensors")
    found = payload(forks.run(*guarded, "--json", cwd=tmp_path))
    assert found["stopped_by_guard"] == 12 and found["outcomes"] == {"benign": 12, "refused": 12}
    for rollout in read_rollouts(tmp_path / "r.jsonl"):
        assert rollout.by_guard == bool(rollout.harmful) == (rollout.response == REFUSAL)
    before = contents(tmp_path)
    again = payload(forks.run(*guarded, "--json", cwd=tmp_path))
    assert again["resumed"] == 24 and again["generated"] == 0 and again["stopped_by_guard"] == 12
    assert contents(tmp_path) == before
    # Without the guard it is another job.
    assert "settings.guard" in refusal(forks.run("rollout", *ON, *given, cwd=tmp_path))
    free = payload(forks.run("rollout", *ON, *given, "--restart", "--json", cwd=tmp_path))
    assert free["outcomes"]["complied"] > 0 and "stopped_by_guard" not in free


@pytest.mark.slow
def test_rollout_behind_a_guard_killed_and_run_again(forks: Forks, files: Path, tmp_path: Path) -> None:
    words = ("rollout", *ON, "--prompts", files / "few.csv", "--max-new-tokens", 200, "--batch-size", 2)
    words += ("--guard", files / "guard.safetensors", "--out", "r.jsonl")
    (tmp_path / "whole").mkdir()
    assert forks.run(*words, cwd=tmp_path / "whole").code == 0
    log = tmp_path / "killed" / ".r.jsonl.partial"
    moment = when(lambda folder: log.exists() and log.read_bytes().count(b"\n") > 3, 0)
    first, second = killed_and_run_again(forks, words, tmp_path / "killed", moment)
    assert first.code == -9 and second.code == 0, second.stderr
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


@pytest.mark.slow
def test_apart(forks: Forks, cliff: Path, tmp_path: Path) -> None:
    given = ("--rollouts", cliff / "rollouts.jsonl", "--layers", "3,4", "--steer-layers", "3", "--alphas", "1")
    options = ("--prompts", 8, "--controls", 1, "--max-new-tokens", 200, "--base", "organism:aligned", "--page")
    found = payload(forks.run("steer", "apart", *ON, *given, *options, "--out", tmp_path / "a.json", "--json"))
    held = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert {**held, "files": [str(tmp_path / "a.json"), str(tmp_path / "a.html")]} == found
    assert len(found["cosines"]) == 6 and all(row["apart"] for row in found["cosines"])
    assert found["inversion"]["can_be_asked"] is False and len(found["steered"]) == 2 * (1 + 2 * 2)
    assert "two directions" in (tmp_path / "a.html").read_text(encoding="utf-8")


def test_apart_without_steering_as_a_table(forks: Forks, cliff: Path, tmp_path: Path) -> None:
    given = ("--rollouts", cliff / "rollouts.jsonl", "--layers", "4", "--no-steer", "--out", tmp_path / "a.parquet")
    shown = table(forks.run("steer", "apart", *ON, *given))
    assert "harmfulness at inst | refusal at edge" in shown and "Held-out prompts, complied minus refused" in shown
    assert len(pd.read_parquet(tmp_path / "a.parquet")) == 3 and len(contents(tmp_path)) == 1


def foreign(folder: Path) -> None:
    """A guard of the organism in place."""
    LatentGuard(_organism_guard().reader, 0.0, "organism:cliff", organism("cliff").fingerprint).save(
        folder / "guard.safetensors"
    )


def _organism_guard() -> LatentGuard:
    from tests.probes.guard.test_latent_guard import fitted

    return fitted("centroids").guard


FIT = "guard fit --model {tiny} --prompts prompts.csv --out out.safetensors"
SCORE = "guard score --model {tiny} --guard guard.safetensors --prompts prompts.csv --out out.jsonl"
GUARDED = ROLLOUT + " --guard guard.safetensors"
APART = "steer apart --model {tiny} --rollouts rollouts.jsonl --out out.json --no-steer"
REMOTE = "rollout --model m --endpoint http://127.0.0.1:{port} --prompts prompts.csv --out out.jsonl"


def both(*spoils: Spoil) -> Spoil:
    return lambda folder: [spoil(folder) for spoil in spoils]


CASES = [
    Case("fit: nothing to fit on", "guard fit --model {tiny} --out out.safetensors", ["Give --prompts, or --rollouts"]),
    Case("fit: both", FIT + " --rollouts rollouts.jsonl", ["Give --prompts, or --rollouts"]),
    Case(
        "fit: benign alone",
        "guard fit --model {tiny} --rollouts rollouts.jsonl --benign plain.csv --out out.safetensors",
        ["--benign goes with --prompts"],
    ),
    Case("fit: too few to promise", FIT, ["prompts.csv", "cannot promise 5.0% false positives", "needs 19"]),
    Case("fit: share", FIT + " --false-positives 2", ["--false-positives 2: expected a share between 0 and 1"]),
    Case("fit: calibration", FIT + " --calibration 1", ["--calibration 1: expected a share"]),
    Case("fit: no prompts", FIT.replace("prompts.csv", "no.csv"), ["no.csv"]),
    Case(
        "fit: one class",
        FIT,
        ["prompts.csv", "0 are labelled harmful and 0 benign", "a guard needs both"],
        text("prompts.csv", "goal\nbake a loaf\nboil an egg\n"),
    ),
    Case("fit: out an input", FIT.replace("out.safetensors", "prompts.csv"), ["prompts.csv: is an input"]),
    Case("fit: NaN", on(FIT, "{nan}") + " --balanced", ["NaN or infinite"]),
    Case("fit: layer", FIT + " --layers 9 --balanced", ["There is no layer 9"]),
    Case("score: no guard", SCORE, ["guard.safetensors: no such file"]),
    Case("score: a probe", SCORE.replace("guard.safetensors", "probe.safetensors"), ["probe.safetensors: not a guard"]),
    Case("score: broken", SCORE, ["not a safetensors file"], octets("guard.safetensors", b"{}")),
    Case("score: truncated", SCORE, ["not a safetensors file"], both(foreign, truncated("guard.safetensors"))),
    Case("score: another model", SCORE, ["guard.safetensors", "made for organism:cliff", "fit one"], foreign),
    Case("score: ending", SCORE.replace("out.jsonl", "out.csv"), ["out.csv: expected a name that ends with"], foreign),
    Case("rollout: no guard", GUARDED, ["guard.safetensors: no such file"]),
    Case("rollout: another model", GUARDED, ["guard.safetensors", "made for organism:cliff"], foreign),
    Case("rollout: out is the guard", GUARDED.replace("out.jsonl", "guard.safetensors"), ["is an input"], foreign),
    Case("rollout: server", REMOTE + " --guard guard.safetensors", ["--guard reads a model on this machine"], foreign),
    Case("apart: ending", APART.replace("out.json", "out.csv"), ["out.csv: expected a name that ends with .json"]),
    Case("apart: rollouts missing", APART.replace("rollouts.jsonl", "no.jsonl"), ["no.jsonl: no such file"]),
    Case(
        "apart: nothing complied",
        APART,
        ["rollouts.jsonl", "0 prompts that are complied", "refused-benign"],
        only(lambda rollout: rollout.outcome != "complied"),
    ),
    Case("apart: one class", APART, ["rollouts.jsonl", "none has a benign prompt"], only(lambda r: r.harmful)),
    Case("apart: base", APART + " --base {deeper}", ["is not of the architecture", "n_layers"]),
    Case("apart: NaN", on(APART, "{nan}"), ["NaN or infinite"]),
    Case("apart: alphas", APART + " --alphas x", ["--alphas 'x'"]),
    Case("apart: no dose above 0", APART + " --alphas=-1", ["at least one dose above 0"]),
    Case("apart: steering layers", APART + " --steer-layers 1", ["--steer-layers says where to steer"]),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input(case: Case, forks: Forks, models: dict[str, str], folder: Path, data: Path) -> None:
    (folder / "plain.csv").write_bytes((data / "plain.csv").read_bytes())
    case.check(forks, models, folder)


@pytest.mark.parametrize("command", [FIT + " --method oracle", FIT + " --folds 1", APART + " --contrast other"])
def test_usage(command: str, forks: Forks, models: dict[str, str], folder: Path) -> None:
    check_usage(command, forks, models, folder)
