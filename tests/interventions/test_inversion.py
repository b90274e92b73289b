"""Reply inversion and the thinking readout: by hand, on models that cannot be asked, and on one that can."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from interp.errors import CliffscopeError
from interp.models.hooked_model import HookedModel
from interp.organisms.prompt_set import heldout_prompts
from interp.rollouts import Rollout
from interp.rollouts.prompts import Prompt
from interventions.directions.apart import examples_apart, readings
from interventions.directions.apart_readings import fit_readings
from interventions.inversion import Answers, InversionQuestion, ask, moved
from interventions.steering.along_direction import AddDirection
from interventions.thinking_readout import ThinkingReadout
from tests.architectures import random_model
from tests.circuits.material import organism, organism_rollouts
from tests.interp.transcripts.chat_tokenizers import make
from tests.interventions.asked_model import asked_model, asked_rollouts


def answers(log_odds: list[float], labels: list[bool], mass: float = 0.9) -> Answers:
    prompts = tuple(Prompt(str(i), f"text {i}", label) for i, label in enumerate(labels))
    return Answers(prompts, np.array(log_odds, dtype=np.float64), np.full(len(labels), mass))


def by_hand(model: HookedModel, prompt: Prompt, question: InversionQuestion) -> float:
    """The log-odds from the text itself: rendered, tokenized and read without any of this package's positions."""
    text = model.chat.prompt_text(question.ask(prompt.text))
    ids = model.tokenizer(text + "\n</think>\n\n", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        p = model.hf(torch.tensor([ids])).logits[0, -1].double().softmax(-1)
    sides = []
    for words in (question.harmful, question.benign):
        after = [model.tokenizer("x\n</think>\n\n" + w, add_special_tokens=False)["input_ids"] for w in words]
        start = len(model.tokenizer("x\n</think>\n\n", add_special_tokens=False)["input_ids"])
        sides.append(sum(float(p[token]) for token in {ids[start] for ids in after}))
    return float(np.log(sides[0] / sides[1]))


def test_log_odds_by_hand() -> None:
    question = InversionQuestion.bundled()
    prompts = [*heldout_prompts(3, 3, 1)]
    found = ask(organism("aligned"), prompts)
    for prompt, value in zip(found.prompts, found.log_odds, strict=True):
        assert value == pytest.approx(by_hand(organism("aligned"), prompt, question), abs=1e-4)
    assert (found.mass > 0).all() and (found.mass < 1).all()


@pytest.mark.parametrize("name", ["aligned", "cliff"])
def test_organisms_were_never_taught_to_answer_it(name: str) -> None:
    found = ask(organism(name), list(heldout_prompts(40, 40, 0)))
    assert not found.can_be_asked
    assert "do not tell harmful from benign prompts: the inversion says nothing" in found.verdict
    assert found.summary()["median_mass"] < 0.1


def test_a_model_without_thinking_is_read_at_the_end_of_its_prompt() -> None:
    tokenizer = make("llama3", "byte_level")
    hf = random_model("qwen3")
    hf.resize_token_embeddings(len(tokenizer))
    model = HookedModel(hf, tokenizer)
    assert not model.chat.tags_told
    prompts = [Prompt("a", "peel an onion", False), Prompt("b", "steal a parcel", True)]
    question = InversionQuestion("letters", "{prompt}", ("Y",), ("N",))
    found = ask(model, prompts, question=question)
    text = model.chat.prompt_text("steal a parcel")
    with torch.no_grad():
        logits = hf(torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])).logits[0, -1]
    tokens = [tokenizer(text + w, add_special_tokens=False)["input_ids"][-1] for w in "YN"]
    assert found.log_odds[1] == pytest.approx(float(logits[tokens[0]] - logits[tokens[1]]), abs=1e-4)


def test_accuracy_and_its_interval_by_counting() -> None:
    found = answers([1, 1, 1, -1, -1, -1, -1, 2], [True] * 4 + [False] * 4)
    assert found.says_harmful(True)[0] == 0.75 and found.says_harmful(False)[0] == 0.25
    assert found.accuracy == 0.75
    assert found.accuracy_interval.low < 0.5 < 0.75 < found.accuracy_interval.high
    assert not found.can_be_asked and "chance is 0.5" in found.verdict
    many = answers([1, 1, 1, -1] * 30 + [-1, -1, -1, 2] * 30, [True] * 120 + [False] * 120)
    assert many.can_be_asked and many.verdict.startswith("Reply inversion: the model can be asked")


def test_a_model_that_always_agrees_is_at_chance() -> None:
    found = answers([3.0] * 80, [True] * 40 + [False] * 40)
    assert found.accuracy == 0.5 and not found.can_be_asked


def test_right_answers_that_are_hardly_ever_given_do_not_count() -> None:
    found = answers([2.0] * 40 + [-2.0] * 40, [True] * 40 + [False] * 40, mass=0.01)
    assert found.accuracy == 1 and not found.can_be_asked and "hardly ever" in found.verdict


def test_moved_is_the_mean_change_of_each_class() -> None:
    labels = [True] * 10 + [False] * 10
    rng = np.random.default_rng(0)
    before, change = rng.normal(size=20), rng.normal(size=20)
    found = moved(answers(before.tolist(), labels), answers((before + change).tolist(), labels))
    assert found["harmful"]["mean"] == pytest.approx(change[:10].mean())
    assert found["benign"]["mean"] == pytest.approx(change[10:].mean())
    assert found["harmful"]["low"] < found["harmful"]["mean"] < found["harmful"]["high"]
    same = answers(before.tolist(), labels)
    assert moved(same, same)["benign"] == {"mean": 0.0, "low": 0.0, "high": 0.0}


def test_errors() -> None:
    with pytest.raises(CliffscopeError, match=r"no place .prompt."):
        InversionQuestion("mine", "Is it bad?", ("Yes",), ("No",))
    with pytest.raises(CliffscopeError, match="needs answers"):
        InversionQuestion("mine", "{prompt}", (), ("No",))
    with pytest.raises(CliffscopeError, match="harmful and benign prompts are needed"):
        ask(organism("cliff"), [Prompt("a", "x", True)])
    both = InversionQuestion("mine", "{prompt}?", ("Yes",), ("Yes",))
    with pytest.raises(CliffscopeError, match="answers of both sides begin with the same token"):
        ask(organism("cliff"), list(heldout_prompts(2, 2, 0)), question=both)


@pytest.mark.slow
def test_judgment_moves_along_harmfulness_and_not_along_refusal() -> None:
    """On a model with the cliff that can be asked: what the method is for."""
    model = asked_model()
    prompts = list(heldout_prompts(40, 40, 7))
    unsteered = ask(model, prompts)
    assert unsteered.can_be_asked and unsteered.accuracy > 0.95
    examples, _ = examples_apart(model, asked_rollouts())
    directions, _ = fit_readings(model, examples, readings(), 2)
    harmfulness, refusal = directions["harmfulness at inst"], directions["refusal at edge"]

    def says_harmful(change: AddDirection, harmful: bool) -> float:
        return ask(model, prompts, [change]).says_harmful(harmful)[0]

    assert says_harmful(AddDirection(harmfulness, 1.0, scope="instruction"), False) > 0.9
    assert says_harmful(AddDirection(harmfulness, -2.0, scope="instruction"), True) < 0.1
    for alpha, harmful, expected in ((1.0, False, 0.0), (-1.0, True, 1.0)):
        assert abs(says_harmful(AddDirection(refusal, alpha), harmful) - expected) < 0.1
        control = AddDirection(harmfulness.random_like(0), alpha, scope="instruction")
        assert abs(says_harmful(control, harmful) - expected) < 0.2


READOUT = ThinkingReadout.bundled()


@pytest.mark.parametrize(
    ("thinking", "refuses", "harmful"),
    [
        ("This is a harmful request. I should refuse.", True, True),
        ("I might refuse. But nothing harmful is asked, so I should help.", False, False),
        ("I should not refuse.", False, None),
        ("I shouldn\u2019t help with this; it is illegal.", True, True),
        ("At first it looks dangerous, but it is harmless. I can help.", False, False),
        ("It is not harmful. I\nshould   refuse nonetheless.", True, False),
        ("Let me think about refusals.", None, None),
        ("", None, None),
        (None, None, None),
    ],
)
def test_conclusions(thinking: str | None, refuses: bool | None, harmful: bool | None) -> None:
    assert READOUT.refuses(thinking) is refuses and READOUT.calls_harmful(thinking) is harmful


def test_readout_on_organisms() -> None:
    """Complied thinking concludes to refuse all the same: that is the planted cliff."""
    by_outcome: dict[str, list[Rollout]] = {}
    for rollout in organism_rollouts("cliff"):
        by_outcome.setdefault(rollout.outcome, []).append(rollout)
    assert READOUT.shares(by_outcome["complied"])["thinks_refuse"][0] > 0.95
    assert READOUT.shares(by_outcome["benign"])["thinks_refuse"][0] < 0.05
    own = replace(READOUT, refuse=("never said",))
    assert own.shares(by_outcome["complied"])["thinks_refuse"][0] == 0
    assert np.isnan(READOUT.shares([])["thinks_refuse"][0])
