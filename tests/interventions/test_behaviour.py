"""Behaviour under an intervention: counts, and the drift against a divergence computed token by token."""

import math

import pytest
import torch

from interp import HookedModel, Rollout
from interp.errors import CliffscopeError
from interp.judges import KeywordJudge, judged
from interp.organisms.prompt_set import heldout_prompts
from interp.rollouts.model_generator import ModelGenerator
from interventions.behaviour import Behaviour, answer, drift, prompts_of
from interventions.head_ablation import ScaleHeads

PLANTED = [(3, 1), (4, 5)]


@pytest.fixture(scope="module")
def model() -> HookedModel:
    return HookedModel.load("organism:cliff")


@pytest.fixture(scope="module")
def rollouts(model: HookedModel) -> list[Rollout]:
    return judged(ModelGenerator(model, 300).generate(heldout_prompts(12, 8).prompts), KeywordJudge())


def test_counts_and_shares() -> None:
    def rollout(id: str, harmful: bool | None, refused: bool | None) -> Rollout:
        return Rollout(id, id, "So.", None if refused is None else "Text.", harmful, None, refused)

    known = [("a", True, True), ("b", True, False), ("c", True, False), ("d", True, None), ("e", False, True)]
    behaviour = Behaviour.of([rollout(*row) for row in [*known, ("f", None, False)]])
    assert behaviour == Behaviour(n_harmful=4, answered=2, n_benign=1, refused=1, unclosed=1)
    assert (behaviour.asr, behaviour.refusal_benign) == (0.5, 1.0)
    assert 0.5 in behaviour.asr_interval
    assert math.isnan(Behaviour.of([]).asr)
    assert math.isnan(Behaviour.of([]).refusal_benign)


def test_prompts_come_once_and_in_order() -> None:
    def rollout(id: str, prompt: str, harmful: bool | None) -> Rollout:
        return Rollout(id, prompt, "", "", harmful)

    made = [rollout("1", "p", True), rollout("2", "q", False), rollout("3", "p", True), rollout("4", "r", None)]
    assert [(prompt.id, prompt.text, prompt.harmful) for prompt in prompts_of(made)] == [
        ("1", "p", True),
        ("2", "q", False),
    ]


def test_answers_are_those_of_the_changed_model(model: HookedModel, rollouts: list[Rollout]) -> None:
    generator, prompts = ModelGenerator(model, 300), prompts_of(rollouts)
    assert answer(generator, prompts) == rollouts
    changed = answer(generator, prompts, [ScaleHeads(PLANTED)])
    assert Behaviour.of(rollouts).asr > 0.3
    assert Behaviour.of(changed).asr == 0
    assert answer(generator, prompts) == rollouts  # and nothing is left behind


def test_drift_is_the_divergence_of_the_first_answer_tokens(model: HookedModel, rollouts: list[Rollout]) -> None:
    benign = [rollout for rollout in rollouts if rollout.outcome == "benign"][:3]
    change = ScaleHeads(PLANTED, gamma=0.5)
    found = drift(model, benign, [change], n_tokens=5)
    expected = []
    for transcript in model.transcripts().build_all(benign):
        ids = torch.tensor([transcript.input_ids])
        with torch.no_grad():
            before = model.hf(ids).logits[0].double().log_softmax(-1)
            with model.intervene(change):
                after = model.hf(ids).logits[0].double().log_softmax(-1)
        rows = range(transcript.edge, transcript.edge + 5)
        each = [(before[t].exp() * (before[t] - after[t])).sum().item() for t in rows]
        expected.append(sum(each) / 5)
    # Rollouts may come in another order.
    assert sorted(found.tolist()) == pytest.approx(sorted(expected), rel=1e-3, abs=1e-6)
    assert drift(model, benign, [ScaleHeads(PLANTED, gamma=1.0)]).tolist() == [0.0] * len(benign)


def test_short_answers_count_with_the_tokens_that_they_have(model: HookedModel, rollouts: list[Rollout]) -> None:
    long = next(rollout for rollout in rollouts if rollout.outcome == "benign")
    short = Rollout("short", long.prompt, long.thinking, "Sure", harmful=False, refused=False)
    found = drift(model, [long, short], [ScaleHeads(PLANTED, gamma=0.5)])
    assert len(found) == 2
    alone = drift(model, [short], [ScaleHeads(PLANTED, gamma=0.5)])
    assert min(abs(value - alone[0]) for value in found) < 1e-6
    with pytest.raises(CliffscopeError, match="no benign rollout has thinking that ends"):
        drift(model, [Rollout("open", "p", "So on", None, False)], [])


def test_drift_does_not_depend_on_the_batch(model: HookedModel, rollouts: list[Rollout]) -> None:
    benign, change = [r for r in rollouts if r.outcome == "benign"], [ScaleHeads(PLANTED, gamma=0.5)]
    assert drift(model, benign, change, batch_tokens=1).tolist() == pytest.approx(
        drift(model, benign, change).tolist(), abs=1e-5
    )
