"""`--null` on the command line: beside the finding in words, numbers and files; refused where it makes no sense."""

import json
from pathlib import Path

import pandas as pd
import pytest

from circuits.head_scores import HeadScores
from interp.null_runs import NullRuns
from interventions.directions import Direction
from probes.guard import LatentGuard
from probes.linear import LinearProbe
from tests.circuits.material import organism_rollouts
from tests.cli.forks import Forks
from tests.cli.printed import payload, refusal, table

MODEL = ("--model", "organism:cliff")


def given(cliff: Path) -> tuple[object, ...]:
    return (*MODEL, "--rollouts", cliff / "rollouts.jsonl")


def probed(cliff: Path) -> tuple[object, ...]:
    return (*given(cliff), "--probe", cliff / "probe.safetensors")


def nulls_of(found: list[dict[str, object]]) -> list[NullRuns]:
    """As printed, and whether each says of itself what its values say."""
    made = [NullRuns.of_summary(one) for one in found]
    assert [null.summary() for null in made] == found
    return made


@pytest.mark.slow
def test_cliff(forks: Forks, cliff: Path, tmp_path: Path) -> None:
    words = ("cliff", *probed(cliff), "--null", "random-direction", "--null-runs", 3)
    first = forks.run(*words, "--out", tmp_path / "a.parquet", "--json")
    shuffled, drawn = nulls_of(payload(first)["nulls"])
    assert (shuffled.null, drawn.null, len(drawn.values)) == ("shuffled", "random-direction", 3)
    assert drawn.observed > 0.9 > max(drawn.values)
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["nulls"][1] == drawn.summary()
    assert "random directions" in (tmp_path / "a.html").read_text(encoding="utf-8")
    again = forks.run(*words, "--out", tmp_path / "b.parquet")
    assert drawn.sentence in table(again)
    for end in ("parquet", "json", "html"):
        assert (tmp_path / f"a.{end}").read_bytes() == (tmp_path / f"b.{end}").read_bytes()
    other = forks.run(*words, "--out", tmp_path / "c.parquet", "--seed", 5, "--json")
    assert nulls_of(payload(other)["nulls"])[1].values != drawn.values


def test_cliff_has_shuffled_probes_already(forks: Forks, cliff: Path, tmp_path: Path) -> None:
    done = forks.run("cliff", *probed(cliff), "--null", "shuffled", "--null-runs", 3, "--out", tmp_path / "a.parquet")
    said = table(done)
    assert "Cliff: " in said and "Against shuffled labels: mean cliff" in said and "of 39 runs" in said
    assert "detected, routed away, answered" in said and "evaded" in said


def test_where_nothing_is_found_nothing_is_set_beside(forks: Forks, aligned: Path, tmp_path: Path) -> None:
    files = ("--rollouts", aligned / "rollouts.jsonl", "--probe", aligned / "probe.safetensors")
    done = forks.run(
        "cliff", "--model", "organism:aligned", *files, "--null", "benign", "--out", tmp_path / "a.parquet"
    )
    assert "--null benign: nothing was found, so there is nothing to set against it." in table(done)


@pytest.mark.slow
def test_probe_fit_and_sweep(forks: Forks, cliff: Path, tmp_path: Path) -> None:
    common = ("--null", "random-weights", "--null-runs", 2, "--json")
    done = forks.run("probe", "fit", *given(cliff), "--layer", 3, *common, "--out", tmp_path / "p.safetensors")
    found = payload(done)
    within, across = nulls_of(found["nulls"])
    assert within.observed == found["auroc"] and across.observed == found["auroc_held_out_category"]
    assert within.statistic == "held-out AUROC" and across.statistic == "AUROC on held-out categories"
    assert LinearProbe.load(tmp_path / "p.safetensors").training["nulls"] == found["nulls"]
    places = ("--layers", "1,3", "--positions", "inst,close:-1", "--shuffles", 1)
    done = forks.run("probe", "sweep", *given(cliff), *places, *common, "--out", tmp_path / "sweep")
    found = payload(done)
    (best,) = nulls_of(found["nulls"])
    cells = pd.read_parquet(tmp_path / "sweep" / "sweep.parquet")
    assert best.observed == cells.loc[cells["control"] == "real", "auroc"].max()
    assert cells.attrs["nulls"] == found["nulls"]
    assert set(found["searches"]) == {"inst", "close:-1"}
    for search in found["searches"].values():
        assert 0.5 < search["auroc_held_out_category_low"] < search["auroc_held_out_category"] <= 1


@pytest.mark.slow
def test_heads(forks: Forks, cliff: Path, tmp_path: Path) -> None:
    words = ("heads", "rank", *probed(cliff), "--limit", 12, "--null", "benign", "--null-runs", 2)
    found = payload(forks.run(*words, "--out", tmp_path / "h.parquet", "--json"))
    share, named = nulls_of(found["nulls"])
    assert named.observed == len(found["suppressors"]) == 2 and max(named.values) == 0 < share.observed
    assert HeadScores.load(tmp_path / "h.parquet").nulls == (share, named)
    curve = ("heads", "curve", *probed(cliff), "--heads", tmp_path / "h.parquet", "--counts", 2, "--random-sets", 1)
    small = ("--prompts", 0, "--limit", 12, "--null", "benign", "--null-runs", 1)
    found = payload(forks.run(*curve, *small, "--out", tmp_path / "c.parquet", "--json"))
    (rise,) = nulls_of(found["nulls"])
    assert rise.observed > 5 and rise.values == (0.0,)


@pytest.mark.slow
def test_steer_and_guard(forks: Forks, cliff: Path, tmp_path: Path) -> None:
    out = tmp_path / "v.safetensors"
    words = ("steer", "fit", *given(cliff), "--layer", 3, "--out", out, "--null-runs", 2, "--json")
    found = payload(forks.run(*words, "--null", "shuffled"))
    within, across = nulls_of(found["nulls"])
    assert within.observed == found["auroc"] and across.observed == found["auroc_held_out_category"]
    assert Direction.load(out).training["nulls"] == found["nulls"]
    (drawn,) = nulls_of(payload(forks.run(*words, "--null", "random-direction"))["nulls"])
    assert drawn.observed == within.observed and min(drawn.values) > 0.2
    check = ("steer", "check", *given(cliff), "--vector", out, "--pairs", 12, "--null", "random-direction")
    (effect,) = nulls_of(payload(forks.run(*check, "--json"))["nulls"])
    assert effect.stands and len(effect.values) == 19
    guard = ("guard", "fit", *given(cliff), "--balanced", "--folds", 2, "--out", tmp_path / "g.safetensors")
    found = payload(forks.run(*guard, "--layers", "2,3", "--null", "random-weights", "--null-runs", 2, "--json"))
    assert nulls_of(found["nulls"])[0].observed == found["calibration"]["auroc"]
    assert LatentGuard.load(tmp_path / "g.safetensors").training["nulls"] == found["nulls"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("cliff --probe {probe} --null random-weights --rollouts {few}", "the probe cannot be fitted anew: one class"),
        ("probe fit --rollouts {rollouts} --null benign", "--null benign: no complied rollouts are fitted on"),
        ("probe sweep --rollouts {rollouts} --null benign", "--null benign: no complied rollouts are fitted on"),
        ("probe sweep --rollouts {rollouts} --null random-direction", "a grid has no one direction"),
        (
            "heads rank --rollouts {rollouts} --probe {probe} --null random-direction",
            "ranking by ablation reads the refusal logit, not the probe's direction",
        ),
        ("steer fit --rollouts {rollouts} --null benign", "refused and benign rollouts do differ"),
        ("steer fit --rollouts {rollouts} --method transport --null shuffled", "a transport map has no AUROC"),
        ("steer check --rollouts {rollouts} --vector v --null shuffled", "the vector is given here"),
        ("steer sweep --prompts {prompts} --vector v --null benign", "the vector is given here"),
        (
            "steer sweep --prompts {prompts} --vector v --null random-direction --controls 0",
            "--controls 0 leaves no random direction",
        ),
        ("steer align --rollouts {rollouts} --layer 3 --null shuffled", "the null here is random subspaces"),
        ("steer apart --rollouts {rollouts} --null benign", "whether two directions are one"),
        ("steer choose --rollouts {rollouts} --table t --null benign", "directions are chosen by what they do"),
        ("guard fit --rollouts {rollouts} --null random-direction", "has no one direction"),
        ("guard fit --rollouts {rollouts} --null benign", "fitted on prompts, of which none were complied with"),
    ],
)
def test_a_null_that_makes_no_sense_is_refused_in_one_line(
    words: str, says: str, forks: Forks, cliff: Path, tmp_path: Path
) -> None:
    few = tmp_path / "few.jsonl"
    lines = (cliff / "rollouts.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    outcomes = [rollout.outcome for rollout in organism_rollouts("cliff")]
    few.write_text("".join(x for x, o in zip(lines, outcomes, strict=True) if o == "complied"), encoding="utf-8")
    names = {"rollouts": cliff / "rollouts.jsonl", "probe": cliff / "probe.safetensors", "few": few}
    command = words.format(**names, prompts=cliff / "prompts.csv").split()
    before = sorted(tmp_path.iterdir())
    said = refusal(forks.run(*command, *MODEL, "--out", tmp_path / "out.parquet"))
    assert says in said
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("words", [("--null", "labels"), ("--null-runs", 0)])
def test_what_is_no_null_is_a_usage_error(words: tuple[object, ...], forks: Forks, cliff: Path, tmp_path: Path) -> None:
    done = forks.run("cliff", *probed(cliff), *words, "--out", tmp_path / "a.parquet")
    assert done.code == 2 and "Traceback" not in done.stderr and not list(tmp_path.iterdir())
