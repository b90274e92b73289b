"""The notebooks that read a model: where refusal falls off, which heads push, your own model and data."""

from pathlib import Path

import pytest

from tests.notebooks.running import check

pytestmark = pytest.mark.slow


def test_where_does_refusal_fall_off(tmp_path: Path) -> None:
    claims = """
assert cliff.verdict == "cliff"
assert probe.training["auroc"] > 0.95 and abs(probe.training["auroc_shuffled"] - 0.5) < 0.25
# The planted fall is at the close tokens, in the rollout that is shown too.
fallen = cliff.table[cliff.table["outcome"] == "complied"]
assert len(fallen) >= 20 and fallen["drop"].str.startswith("close").mean() > 0.9
assert trajectory.scores[trajectory.thinking].mean() > 0.8 > 0.5 > trajectory.scores[transcript.edge]
"""
    check(1, tmp_path, claims)


def test_which_heads_push(tmp_path: Path) -> None:
    claims = """
planted = set(truth("cliff")["heads"])
for found in (written, scores):
    assert set(map(str, found.suppressors)) == planted
assert planted <= set(map(str, exchanged.suppressors))
# The ranked heads bring refusal back, and no random set comes near.
assert curve.returns is not None and curve.returns <= 2
drawn = curve.table[curve.table["set"] == "random"]
assert drawn["refusal_logit"].max() < -5
"""
    check(2, tmp_path, claims)


def test_your_own_model_and_data(tmp_path: Path) -> None:
    claims = """
assert cliff.verdict == "cliff" and cliff.model == "runs/notebook-6/my-model"
assert {True: 60, False: 40} == dict(Counter(prompt.harmful for prompt in prompts))
assert agreement.n == len(rollouts) and agreement.kappa > 0.9
told = {name: " ".join(chat.quirks) for name, chat in formats.items()}
assert "no chat template" in told["no template"] and "are assumed" in told["no tags"]
assert "no edge to read" in told["thinking off"] and "no edge" not in told["this model"]
"""
    check(6, tmp_path, claims)
    assert (tmp_path / "runs" / "notebook-6" / "my-model" / "model.safetensors").exists()
