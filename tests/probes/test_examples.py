"""Which rollouts teach a probe, and probes fitted on a model from end to end."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from interp.errors import CliffscopeError
from interp.models.hooked_model import HookedModel
from interp.rollouts import Rollout
from interp.transcripts.positions import EDGE
from probes.examples import Examples
from probes.linear import LinearProbe
from probes.model_sweep import fit_probe, make_plan, parts_folder, sweep_model
from probes.sweep import SweepOptions
from tests.architectures import random_model
from tests.interp.transcripts.chat_tokenizers import make

OPTIONS = SweepOptions(n_shuffles=1, resamples=50)


@pytest.fixture(scope="module")
def model() -> HookedModel:
    tokenizer = make("r1", "byte_level")
    hf = random_model("qwen3")
    hf.resize_token_embeddings(len(tokenizer))
    return HookedModel(hf, tokenizer, name="tiny")


def rollouts() -> list[Rollout]:
    """Refused and benign rollouts in turn, some others, some that lack an edge."""
    made = []
    for number in range(24):
        harmful = number % 2 == 0
        words = "harmful, refuse" if harmful else "harmless, help"
        prompt, category = f"Prompt {number} {words}", f"category {number % 6}"
        made.append(Rollout(f"r{number}", prompt, f"I think {number}: {words}.", words, harmful, category, harmful))
    made.append(Rollout("complied", "p", "thinking", "Sure", harmful=True, refused=False))
    made.append(Rollout("over", "p", "thinking", "I cannot", harmful=False, refused=True))
    made.append(Rollout("unclosed", "p", "thinking", None, harmful=True))
    made.append(Rollout("unlabelled", "p", "thinking", "Sure", harmful=None, refused=False))
    return made


def test_refused_and_benign_teach_and_the_rest_is_counted(model: HookedModel) -> None:
    examples = Examples.of(model, rollouts(), ["inst", EDGE])
    assert examples.ids == [f"r{number}" for number in range(24)]
    assert examples.labels.tolist() == [1, 0] * 12
    assert examples.skipped == {
        "answered a harmful prompt": 1,
        "refused a benign prompt": 1,
        "thinking never closed": 1,
        "not known whether the prompt is harmful": 1,
    }


def test_rollouts_that_lack_a_position_are_left_out(model: HookedModel) -> None:
    some = [replace(r, thinking="") if r.id in ("r0", "r1") else r for r in rollouts()]
    examples = Examples.of(model, some, ["think:0.5", EDGE])
    assert examples.skipped["lacks think:0.5"] == 2 and len(examples.ids) == 22


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (lambda r: r.harmful is True, "one class only: none answered a benign prompt"),
        (lambda r: r.harmful is False, "one class only: none refused a harmful prompt"),
        (lambda r: r.id in ("r0", "r1", "r2", "r3"), "2 refused and 2 benign ones are too few"),
    ],
)
def test_too_little_to_learn_from_is_said(model: HookedModel, chosen: object, message: str) -> None:
    assert callable(chosen)
    with pytest.raises(CliffscopeError, match=message):
        Examples.of(model, [rollout for rollout in rollouts() if chosen(rollout)], [EDGE])


def test_a_probe_of_a_model_scores_as_its_held_out_figures_say(model: HookedModel) -> None:
    examples = Examples.of(model, rollouts(), [EDGE])
    probe, sweep = fit_probe(model, examples, options=OPTIONS)
    assert sweep is not None and probe.layer == sweep.choose_layer(EDGE)
    assert probe.site == f"blocks.{probe.layer}.hook_resid_post"
    assert probe.fingerprint == model.fingerprint and probe.model == "tiny" and probe.position == EDGE
    split = make_plan(examples, OPTIONS).main.split
    states = model.capture([examples.transcripts[i] for i in split.test], [probe.site], [EDGE])[probe.site][:, 0]
    predicted = (probe.score(states) >= 0.5).long()
    accuracy = (predicted == examples.labels[torch.as_tensor(split.test)]).double().mean().item()
    assert accuracy == pytest.approx(probe.training["accuracy"])


def test_fixed_layers_the_final_norm_and_the_mean_difference(model: HookedModel) -> None:
    examples = Examples.of(model, rollouts(), [EDGE])
    fixed, _ = fit_probe(model, examples, layer=-2, options=OPTIONS)
    assert fixed.layer == 1
    norm, sweep = fit_probe(model, examples, layer="norm", options=OPTIONS)
    assert norm.site == "ln_final.hook_out" and sweep is None and "auroc" in norm.training
    mean, sweep = fit_probe(model, examples, layer=1, method="mean-difference", options=OPTIONS)
    assert mean.layer == 1 and sweep is None  # nothing is fitted that nobody reads
    split = make_plan(examples, OPTIONS).main.split
    states = examples.activations(model, [1], 8192)[0, torch.as_tensor(split.train), 0]
    labels = examples.labels[torch.as_tensor(split.train)]
    difference = states[labels == 1].mean(0) - states[labels == 0].mean(0)
    cosine = torch.nn.functional.cosine_similarity(mean.weight, difference, dim=0)
    assert cosine.item() == pytest.approx(1.0, abs=1e-5)


def test_a_sweep_goes_on_from_the_layers_that_are_there(model: HookedModel, tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    examples = Examples.of(model, rollouts(), ["inst", EDGE])
    whole = sweep_model(model, examples, range(3), OPTIONS)
    sweep_model(model, examples, [0, 2], OPTIONS, folder=tmp_path)
    read: list[object] = []
    original = Examples.activations

    def watched(self: Examples, model: HookedModel, layers: list[int], batch_tokens: int) -> torch.Tensor:
        read.extend(layers)
        return original(self, model, layers, batch_tokens)

    monkeypatch.setattr(Examples, "activations", watched)
    resumed = sweep_model(model, examples, range(3), OPTIONS, folder=tmp_path)
    assert read == [1]
    assert resumed.table.equals(whole.table)
    for layer in range(3):
        assert torch.equal(resumed.layers[layer].weight, whole.layers[layer].weight)


def test_other_rollouts_do_not_go_on_from_there(model: HookedModel, tmp_path) -> None:  # type: ignore[no-untyped-def]
    plan = SweepOptions(n_shuffles=1)
    folders = set()
    for some in (rollouts(), rollouts()[2:], [replace(r, thinking=f"{r.thinking} more") for r in rollouts()]):
        examples = Examples.of(model, some, [EDGE])
        folders.add(parts_folder(model, examples, make_plan(examples, plan), tmp_path))
    assert len(folders) == 3


def test_layers_are_read_in_groups_that_fit_in_memory(model: HookedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = Examples.of(model, rollouts(), [EDGE])
    whole = sweep_model(model, examples, range(3), OPTIONS)
    monkeypatch.setattr("probes.model_sweep.ACTIVATION_BYTES", 1)
    assert sweep_model(model, examples, range(3), OPTIONS).table.equals(whole.table)


def test_a_random_model_still_separates_these_texts(model: HookedModel) -> None:
    """The examples differ in their words, so a probe that could not tell them apart would be broken."""
    probe, _ = fit_probe(model, Examples.of(model, rollouts(), [EDGE]), options=OPTIONS)
    assert isinstance(probe, LinearProbe)
    assert probe.training["auroc"] == 1.0
    assert np.isfinite(probe.training["auroc_shuffled"])
