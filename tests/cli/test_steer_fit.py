"""`cliffscope steer fit` and `steer choose` on the organism, against the Python interface."""

from pathlib import Path

import numpy as np
import pytest
import torch

from interp.cli.steer.choose import Sufficient
from interp.cli.steer.fit import Contrast, FitMethod, Kind, Method
from interp.organisms import truth
from interp.rollouts import write_rollouts
from interp.transcripts.positions import EDGE
from interventions.directions import CONTRASTS, METHODS, ChoiceOptions, Direction, choose_direction, fit_directions
from interventions.directions.choosing import TABLE
from interventions.directions.contrasts import DEFAULTS
from interventions.steering.transport import COMPONENTS, GaussianMap
from tests.circuits.material import organism, organism_rollouts
from tests.cli.forks import Forks
from tests.cli.printed import payload, refusal, table

FIT = ("steer", "fit", "--model", "organism:cliff")
CHOOSE = ("steer", "choose", "--model", "organism:cliff")


def test_the_choices_offered_are_those_that_there_are() -> None:
    assert [kind.value for kind in Kind] == list(DEFAULTS)
    assert [method.value for method in Method] == list(METHODS)
    assert [method.value for method in FitMethod] == [*METHODS, "transport"]
    assert [contrast.value for contrast in Contrast] == list(CONTRASTS)
    assert [ChoiceOptions(sufficient=way.value).sufficient for way in Sufficient] == ["induce", "restore"]


def test_harmfulness_at_the_best_layer_is_the_planted_direction(forks: Forks, cliff: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "harm.safetensors"
    words = ("--rollouts", cliff / "rollouts.jsonl", "--kind", "harmfulness", "--out", out)
    found = payload(forks.run(*FIT, *words, "--json"))
    direction = Direction.load(out)
    expected = fit_directions(organism("cliff"), organism_rollouts("cliff"), kind="harmfulness")[found["layer"]]
    torch.testing.assert_close(direction.basis, expected.basis, atol=1e-5, rtol=0)
    assert (direction.kind, direction.layer, direction.position) == ("harmfulness", found["layer"], "inst")
    assert abs(float(direction.vector @ torch.tensor(truth("aligned")["direction"]))) >= 0.9
    assert found["auroc"] == expected.training["auroc"] and found["scale"] == direction.scale
    assert direction.training["rollouts"] == str(cliff / "rollouts.jsonl") and direction.model == "organism:cliff"


def test_a_layer_site_method_and_contrast_as_asked(forks: Forks, cliff: Path, tmp_path: Path) -> None:
    out = tmp_path / "v.safetensors"
    words = ("--rollouts", cliff / "rollouts.jsonl", "--layer", -2, "--site", "hook_attn_out", "--seed", 4)
    said = table(
        forks.run(*FIT, *words, "--method", "discriminant", "--contrast", "refused-benign", "--position", "post_inst",
                  "--out", out)
    )  # fmt: skip
    direction = Direction.load(out)
    assert direction.site == "blocks.4.hook_attn_out" and direction.method == "discriminant"
    assert direction.training["contrast"] == "refused-benign" and direction.training["seed"] == 4
    expected = fit_directions(
        organism("cliff"), organism_rollouts("cliff"), contrast="refused-benign", method="discriminant", layers=[4],
        position="post_inst", site="hook_attn_out", seed=4,
    )[4]  # fmt: skip
    torch.testing.assert_close(direction.basis, expected.basis, atol=1e-4, rtol=0)
    assert "held-out AUROC" in said and "post_inst" in said and f"Written to {out}." in said


def test_transport(forks: Forks, cliff: Path, tmp_path: Path) -> None:
    out = tmp_path / "map.safetensors"
    words = ("--rollouts", cliff / "rollouts.jsonl", "--method", "transport", "--layer", 3, "--out", out)
    found = payload(forks.run(*FIT, *words, "--k", 3, "--json"))
    fitted = GaussianMap.load(out)
    assert (fitted.k, fitted.layer, fitted.position, fitted.kind) == (3, 3, EDGE, "refusal")
    assert found["distance_after"] < found["distance_before"] / 2
    assert "held-out means" in table(forks.run(*FIT, *words))
    assert GaussianMap.load(out).k == COMPONENTS


def test_auto_chooses_a_layer_for_refusal_by_its_effect(forks: Forks, tmp_path: Path) -> None:
    out, few = tmp_path / "v.safetensors", tmp_path / "rollouts.jsonl"
    groups = [
        [r for r in organism_rollouts("cliff") if r.outcome == name] for name in ("refused", "complied", "benign")
    ]
    write_rollouts(few, rollouts := [*groups[0][:12], *groups[1][:12], *groups[2][:4]])
    found = payload(forks.run(*FIT, "--rollouts", few, "--out", out, "--json"))
    choice = choose_direction(organism("cliff"), rollouts, positions=[EDGE])
    assert found["layer"] == choice.require().layer and found["reason"] == choice.reason
    assert Direction.load(out).training["bypass"] == pytest.approx(choice.require().training["bypass"], abs=1e-3)


def test_choose(forks: Forks, cliff: Path, tmp_path: Path) -> None:
    out, scores = tmp_path / "v.safetensors", tmp_path / "scores.parquet"
    words = ("--rollouts", cliff / "rollouts.jsonl", "--layers", "1,4", "--positions", EDGE, "--limit", 5)
    done = forks.run(*CHOOSE, *words, "--out", out, "--table", scores, "--json")
    found, direction = payload(done), Direction.load(out)
    options = ChoiceOptions(limit=5)
    expected = choose_direction(
        organism("cliff"), organism_rollouts("cliff"), positions=[EDGE], layers=[1, 4], options=options
    )
    assert found["reason"] == expected.reason and found["layer"] == direction.layer == 1
    torch.testing.assert_close(direction.basis, expected.require().basis, atol=1e-5, rtol=0)
    read, told = TABLE.read(scores)
    assert told["reason"] == expected.reason and told["facts"]["options"]["limit"] == 5
    assert list(read["control"]) == ["real", "real", "random", "random", "random"]
    for name in ("bypass", "induce", "restore", "kl"):
        np.testing.assert_allclose(read[name], expected.table[name], atol=1e-3)
    assert [row["chosen"] for row in found["candidates"]] == list(read["chosen"])


def test_choose_says_that_none_is_within_the_budget_and_keeps_the_table(
    forks: Forks, cliff: Path, tmp_path: Path
) -> None:
    out, scores = tmp_path / "v.safetensors", tmp_path / "scores.parquet"
    words = ("--rollouts", cliff / "rollouts.jsonl", "--layers", "5", "--positions", EDGE, "--limit", 5)
    said = refusal(forks.run(*CHOOSE, *words, "--out", out, "--table", scores))
    assert "none of the 1 candidates is within the budget" in said and "layer 5 is not below 0.8" in said
    assert str(scores) in said and not out.exists()
    assert len(TABLE.read(scores)[0]) == 1
