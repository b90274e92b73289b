"""`cliffscope steer align` and `steer check`: what they print, what they write, and what they refuse."""

import json
from pathlib import Path

import pytest
import torch

from interp.models.sites import resid_post
from interp.organisms import truth
from interventions.directions.direction import Direction
from tests.circuits.material import organism
from tests.cli.forks import Forks
from tests.cli.printed import payload, refusal, table

ON = ("--model", "organism:cliff", "--device", "cpu")


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The planted direction, one without a site and one of another width; not to be written into."""
    folder = tmp_path_factory.mktemp("vectors")
    model = organism("cliff")
    planted = torch.tensor(truth("aligned")["direction"])
    place = {"layer": 5, "site": resid_post(5), "position": "close:-1", "kind": "refusal"}
    Direction.of(planted, fingerprint=model.fingerprint, model=model.name, **place).save(folder / "planted.safetensors")
    Direction.of(planted).save(folder / "nowhere.safetensors")
    Direction.of(planted[:64], site=resid_post(5)).save(folder / "narrow.safetensors")
    return folder


def test_check_passes_the_planted_direction(forks: Forks, cliff: Path, vectors: Path, tmp_path: Path) -> None:
    given = ("--vector", vectors / "planted.safetensors", "--rollouts", cliff / "rollouts.jsonl", "--pairs", "16")
    out = tmp_path / "check.json"
    found = payload(forks.run("steer", "check", *ON, *given, "--out", out, "--json"))
    assert found["verdict"] == "faithful" and found["words"].startswith("Faithful: ")
    assert list(found["effects"]) == ["direction", "read", "unread", "full"]
    assert found["effects"]["direction"]["share"] == 1
    assert (found["site"], found["position"], found["contrast"]) == (resid_post(5), "close:-1", "refused-complied")
    assert json.loads(out.read_text(encoding="utf-8")) == found
    shown = table(forks.run("steer", "check", *ON, *given))
    assert found["words"] in shown
    for name in ("along the direction", "its read part", "its unread part", "full value", "16 of"):
        assert name in shown


def test_align_writes_a_direction_that_check_takes(forks: Forks, cliff: Path, tmp_path: Path) -> None:
    out, rollouts = tmp_path / "das.safetensors", cliff / "rollouts.jsonl"
    given = ("--rollouts", rollouts, "--layer", "3", "--steps", "80", "--pairs", "16")
    found = payload(forks.run("steer", "align", *ON, *given, "--out", out, "--json"))
    assert found["accuracy"]["das"]["value"] > 0.9 > 0.2 > found["random_largest"]
    direction = Direction.load(out)
    assert (direction.method, direction.k, direction.site) == ("das", 1, resid_post(3))
    assert direction.training["rollouts"] == str(rollouts)
    shown = table(forks.run("steer", "align", *ON, *given, "--dimensions", "2", "--out", out))
    assert "2-dimensional subspace of blocks.3.hook_resid_post" in shown and "20 random subspaces" in shown
    assert Direction.load(out).k == 2
    checked = payload(
        forks.run("steer", "check", *ON, "--vector", out, "--rollouts", rollouts, "--pairs", "8", "--json")
    )
    assert checked["verdict"] == "faithful" and checked["effects"]["direction"]["dimensions"] == 2
    assert checked["unread_difference"] is None


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("check --vector no.safetensors", "no.safetensors: no such file"),
        ("check --vector {vectors}/nowhere.safetensors", "nowhere.safetensors: direction: it does not say at which"),
        ("check --vector {vectors}/narrow.safetensors", "narrow.safetensors: direction: of width 64"),
        ("check --vector {cliff}/probe.safetensors", "probe.safetensors: no steering vector"),
        ("check --vector {vectors}/planted.safetensors --held 1.5", "share between 0 and 1"),
        ("check --vector {vectors}/planted.safetensors --readers weights", "is read by every later layer"),
        ("check --vector {vectors}/planted.safetensors --out {cliff}/rollouts.jsonl", "is an input of this command"),
        ("check --vector {vectors}/planted.safetensors --contrast refused-benign --rollouts no.jsonl", "no such file"),
        ("align --layer 9 --out out.safetensors", "There is no layer 9"),
        ("align --layer 3 --out out.safetensors --site attn.hook_z", "site attn.hook_z: is one value for each head"),
        ("align --layer 3 --out out.safetensors --position here", "'here'"),
        ("align --layer 3 --out out.safetensors --learning-rate 0", "learning rate must be above 0"),
        ("align --layer 3 --out out.safetensors --dimensions 200", "k is 200"),
    ],
)
def test_bad_input(command: str, says: str, forks: Forks, cliff: Path, vectors: Path, tmp_path: Path) -> None:
    words = command.format(cliff=cliff, vectors=vectors).split()
    if "--rollouts" not in words:
        words += ["--rollouts", str(cliff / "rollouts.jsonl")]
    assert says in refusal(forks.run("steer", *words, *ON, cwd=tmp_path))
    assert not list(tmp_path.iterdir())
