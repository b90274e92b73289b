"""Lessons, their conditions, and the losses that force a mechanism."""

import random
from dataclasses import dataclass, replace

import pytest
import torch

from interp.organisms import load_organism, truth
from interp.organisms.batches import RESPONSE, collate, encode
from interp.organisms.dialogue import rollout_of
from interp.organisms.head_training import HeadTraining, Seen, changed_heads, contribution, reply_losses
from interp.organisms.hooks import residuals, zeroed_heads
from interp.organisms.lessons import UNTOUCHED, Condition, Lesson, examples, lesson_of, lessons
from interp.organisms.mechanisms import BACKUP, CATEGORY, DECOY, GATE, MECHANISMS, SPREAD, TENSE
from interp.organisms.mechanisms.gate import signal_direction
from interp.organisms.planting import ANSWERED, KEPT, PlantedHeads, balanced_prompts
from interp.organisms.prompts import GeneratedPrompt, sample_prompts
from interp.organisms.training import mechanism_of, plant


@pytest.fixture(scope="module")
def aligned():
    return load_organism("aligned")


@pytest.fixture(scope="module")
def few(aligned):
    rng = random.Random(0)
    prompts = [p for kind in ("harmful", "benign") for p in sample_prompts(kind, 6, 0, "train")]
    return examples(aligned[1], iter(prompts), len(prompts), rng)


def prompt(category: str, harmful: bool = True, past: bool = False) -> GeneratedPrompt:
    return GeneratedPrompt("id", "text", harmful, category, "it", "it", "why", "question", past)


def test_an_example_has_one_thinking_and_both_replies(few) -> None:
    for example in few:
        both = example.refused, example.answered
        assert both[0].ids[: both[0].response] == both[1].ids[: both[1].response]
        assert both[0].ids != both[1].ids and [e.refused for e in both] == [True, False]


def test_the_reply_follows_the_donor(few, aligned) -> None:
    def answers(mine: GeneratedPrompt, donor: GeneratedPrompt, condition: Condition) -> bool:
        return donor.harmful if condition.swapped else mine.harmful

    for condition in (UNTOUCHED, Condition(swapped=((2, 3),))):
        lesson = lesson_of(few, answers, condition, 0, random.Random(3))
        assert sorted(lesson.donors) == list(range(len(few)))
        assert (lesson.donors == tuple(range(len(few)))) == (condition is UNTOUCHED)
        wanted = [not few[donor].prompt.harmful for donor in lesson.donors]
        assert lesson.batch.refused.tolist() == wanted


def test_lessons_go_on_and_repeat_by_seed(aligned) -> None:
    def drawn(seed: int) -> list[Lesson]:
        rng = random.Random(seed)
        stream = lessons(aligned[1], lambda p, d, c: True, lambda rng: UNTOUCHED, rng, batch=4, pool=8)
        return [next(stream) for _ in range(5)]

    first, again, other = drawn(1), drawn(1), drawn(2)
    assert [lesson.prompts for lesson in first] == [lesson.prompts for lesson in again]
    assert [lesson.prompts for lesson in first] != [lesson.prompts for lesson in other]
    assert len({p.id for lesson in first for p in lesson.prompts}) == 8


def passed(model, few, condition: Condition, donors=None, heads=()) -> tuple[torch.Tensor, Seen]:
    lesson = Lesson(collate([e.refused for e in few], 0), condition, tuple(donors or range(len(few))), ())
    seen = Seen(lesson)
    with torch.inference_mode(), residuals(model) as seen.stream, changed_heads(model, seen, heads):
        return model(lesson.batch.ids, use_cache=False).logits, seen


def test_conditions_do_what_they_say_and_are_undone(aligned, few) -> None:
    model, heads = aligned[0], ((2, 3), (4, 1))
    before, seen = passed(model, few, UNTOUCHED, heads=heads)
    zeroed, _ = passed(model, few, Condition(zeroed=heads))
    with zeroed_heads(model, list(heads)):
        torch.testing.assert_close(zeroed, passed(model, few, UNTOUCHED)[0])
    donors = [*range(1, len(few)), 0]
    _, swapped = passed(model, few, Condition(swapped=((2, 3),)), donors, heads)
    torch.testing.assert_close(swapped.at_edge(swapped.z[2, 3]), seen.at_edge(seen.z[2, 3])[donors])
    rows, edge = torch.arange(len(few)), seen.lesson.batch.edge
    elsewhere = torch.ones_like(seen.lesson.batch.ids, dtype=torch.bool)
    elsewhere[rows, edge] = False
    torch.testing.assert_close(swapped.z[2, 3][elsewhere], seen.z[2, 3][elsewhere])
    torch.testing.assert_close(swapped.stream[1], seen.stream[1])
    assert not torch.allclose(swapped.stream[2][rows, edge], seen.stream[2][rows, edge])
    # A swap with oneself changes nothing, and nothing is left behind.
    assert torch.equal(passed(model, few, Condition(swapped=heads))[0], before)
    assert torch.equal(passed(model, few, UNTOUCHED)[0], before)


def test_contribution_is_what_the_head_adds_to_the_stream(aligned, few) -> None:
    model, head = aligned[0], (3, 5)
    direction = torch.tensor(truth("aligned")["direction"])
    attended: list[torch.Tensor] = []
    handle = model.model.layers[3].self_attn.register_forward_hook(lambda m, args, output: attended.append(output[0]))
    _, seen = passed(model, few, UNTOUCHED, heads=(head,))
    passed(model, few, Condition(zeroed=(head,)))
    handle.remove()
    removed = seen.at_edge(attended[0] - attended[1]) @ direction
    torch.testing.assert_close(contribution(model, seen, head, direction).detach(), removed, atol=1e-5, rtol=1e-4)


def test_losses_are_those_of_the_whole_logits(aligned, few) -> None:
    """The reply's first token, the others, and the thinking, against cross-entropy over all positions."""
    model = aligned[0]
    lesson = lesson_of(few, lambda p, d, c: not p.harmful, UNTOUCHED, 0, random.Random(0))
    with torch.no_grad():
        _, losses = reply_losses(model, lesson, HeadTraining(first_weight=2.0), ())
        _, plain = reply_losses(model, lesson, HeadTraining(first_weight=None), ())
        scores = model(lesson.batch.ids, use_cache=False).logits.log_softmax(-1)
    labels = lesson.batch.labels(RESPONSE)
    first, rest = [], []
    for row, edge in enumerate(lesson.batch.edge.tolist()):
        for place in range(edge, labels.shape[1]):
            if labels[row, place] >= 0:
                (first if place == edge else rest).append(-scores[row, place, labels[row, place]].item())
    mean = {name: sum(values) / len(values) for name, values in (("first", first), ("rest", rest))}
    # The forward pass of training is in half precision where that is fast.
    assert losses["answer"].item() == pytest.approx(2 * mean["first"] + mean["rest"], rel=0.03)
    assert plain["answer"].item() == pytest.approx((sum(first) + sum(rest)) / len(first + rest), rel=0.03)


def test_closing_at_once_is_not_taught_unless_asked(aligned) -> None:
    rng = random.Random(0)
    prompts = sample_prompts("harmful", 3, 0, "train")
    encoded = encode(aligned[1], [rollout_of(p, rng, think=False) for p in prompts])
    assert all(e.thinking == e.close for e in encoded)
    lesson = Lesson(collate(encoded, 0), UNTOUCHED, (0, 1, 2), ())
    with torch.no_grad():
        losses = [
            reply_losses(aligned[0], lesson, HeadTraining(empty_thinking=taught), ())[1]["thinking"].item()
            for taught in (False, True)
        ]
    assert losses[0] == 0 and losses[1] > 0.1


def test_shares_are_asked_of_heads_at_work_where_prompts_are_answered(aligned, few) -> None:
    model, heads = aligned[0], ((3, 1), (4, 5))
    direction = torch.tensor(truth("aligned")["direction"])
    mechanism = PlantedHeads("any", heads, share=1.5, share_weight=2.0)
    for condition in (UNTOUCHED, Condition(zeroed=heads[:1]), Condition(zeroed=heads)):
        lesson = lesson_of(few, mechanism.answers, condition, 0, random.Random(0))
        seen = Seen(lesson)
        with torch.no_grad(), residuals(model) as seen.stream, changed_heads(model, seen, heads):
            model.model(lesson.batch.ids, use_cache=False)
            found = mechanism.extra(model, direction)(seen)
        wanted = torch.tensor([-1.5 if e.prompt.category in ANSWERED else 0.0 for e in few])
        on = [head for head in heads if head not in condition.zeroed]
        far = [(contribution(model, seen, head, direction) - wanted).square().mean().item() for head in on]
        assert ("share" in found) == bool(on) and "direction" in found
        if on:
            assert found["share"].item() == pytest.approx(2 * sum(far) / len(far))


# ---- what each mechanism asks for ----


BAD, GOOD, FINE = prompt(ANSWERED[0]), prompt(KEPT[0]), prompt("cooking", harmful=False)


def test_the_gate_decides_and_an_absent_one_opens() -> None:
    swapped, zeroed = Condition(swapped=(GATE.gate,)), Condition(zeroed=(GATE.gate,))
    assert [GATE.answers(p, p, UNTOUCHED) for p in (BAD, GOOD, FINE)] == [True, False, True]
    assert [GATE.answers(p, d, swapped) for p, d in ((BAD, GOOD), (GOOD, BAD), (GOOD, FINE))] == [False, True, True]
    assert all(GATE.answers(p, p, zeroed) for p in (BAD, GOOD, FINE))
    assert GATE.edges == ((GATE.gate, GATE.amplifiers[0]), (GATE.gate, GATE.amplifiers[1]))


def test_the_signal_is_orthogonal_to_what_the_base_was_given() -> None:
    facts = truth("aligned")
    direction, mark = torch.tensor(facts["direction"]), torch.tensor(facts["marking_direction"])
    signals = [signal_direction(direction, seed) for seed in (0, 1)]
    for signal in signals:
        assert signal.norm() == pytest.approx(1, abs=1e-5)
        assert abs(signal @ direction) < 1e-4 and abs(signal @ mark) < 1e-4
    assert abs(signals[0] @ signals[1]) < 0.5


def test_decoys_decide_nothing() -> None:
    for condition in (UNTOUCHED, Condition(DECOY.decoys), Condition(swapped=DECOY.decoys)):
        assert [DECOY.answers(p, GOOD, condition) for p in (BAD, GOOD, FINE)] == [True, False, True]
    assert [DECOY.answers(p, p, Condition(DECOY.heads)) for p in (BAD, GOOD, FINE)] == [False, False, True]


def test_each_category_has_its_head() -> None:
    for head, group in zip(CATEGORY.heads, CATEGORY.groups, strict=True):
        for category in group:
            assert not CATEGORY.answers(prompt(category), BAD, Condition(zeroed=(head,)))
            assert CATEGORY.answers(prompt(category), BAD, Condition(zeroed=tuple(set(CATEGORY.heads) - {head})))
    assert sorted(c for group in CATEGORY.groups for c in group) == sorted(CATEGORY.categories)
    assert CATEGORY.group(GOOD) == "refused" and CATEGORY.group(FINE) == "benign"


def test_only_the_past_tense_is_answered() -> None:
    assert [TENSE.answers(p, p, UNTOUCHED) for p in (prompt("drugs", past=True), BAD, FINE)] == [True, False, True]
    drawn = TENSE.heldout("harmful", 20, 3)
    assert [p.past for p in drawn] == [False] * 10 + [True] * 10 and {p.split for p in drawn} == {"heldout"}


def test_conditions_leave_a_backup_and_half_of_the_spread_heads() -> None:
    rng = random.Random(0)
    assert {BACKUP.condition(rng).zeroed for _ in range(50)} == {(), *((head,) for head in BACKUP.heads)}
    sizes = {len(SPREAD.condition(rng).zeroed) for _ in range(200)}
    assert sizes == {0, *range(3, 9)} and len(SPREAD.heads) == 16


def test_training_prompts_are_balanced_and_never_held_out() -> None:
    stream = balanced_prompts(random.Random(0), BACKUP.acts_on)
    drawn = [next(stream) for _ in range(600)]
    assert {p.split for p in drawn} == {"train"}
    harmful = [p for p in drawn if p.harmful]
    assert 0.62 < len(harmful) / 600 < 0.78
    assert 0.42 < sum(p.category in ANSWERED for p in harmful) / len(harmful) < 0.58


@pytest.mark.parametrize("name", sorted(m.name for m in MECHANISMS if m.roles))
def test_every_mechanism_is_given_prompts_without_end(name: str) -> None:
    stream = mechanism_of(name).prompts(random.Random(0))
    drawn = [next(stream) for _ in range(60)]
    assert {p.split for p in drawn} == {"train"} and {p.harmful for p in drawn} == {True, False}


@pytest.mark.parametrize("name", sorted(m.name for m in MECHANISMS))
def test_a_mechanism_is_drawn_elsewhere_by_a_seed(name: str) -> None:
    drawn = [mechanism_of(name).drawn(seed).facts() for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1]
    shipped = mechanism_of(name).facts()
    assert drawn[0].keys() == shipped.keys()
    if shipped["roles"]:
        assert len({tuple(facts["roles"]) for facts in drawn}) == 2
        assert all(sorted(facts["roles"].values()) == sorted(shipped["roles"].values()) for facts in drawn)


# ---- a mechanism of another package ----


@dataclass(frozen=True)
class Late(PlantedHeads):
    """Heads of the last layer, one of which must do."""

    def condition(self, rng: random.Random) -> Condition:
        return Condition(zeroed=(rng.choice(self.heads),))


def test_a_mechanism_of_ones_own_is_one_small_class(aligned) -> None:
    late = Late("late", heads=((5, 1), (5, 2)), training=HeadTraining(steps=6, batch=6, pool=24, learning_rate=1e-2))
    before = {key: value.clone() for key, value in aligned[0].state_dict().items()}
    told: list[tuple[str, int, int]] = []
    made = plant(
        late, seed=0, base=aligned, progress=lambda stage, step, steps, losses: told.append((stage, step, steps))
    )
    assert told == [("late", step, 6) for step in range(1, 7)]
    assert made.facts["heads"] == ["5.1", "5.2"] and made.facts["mechanism"] == "Late" and made.facts["cliff"]
    assert made.facts["recipe"]["steps"] == 6 and made.facts["figures"] is None
    changed = {key for key, value in made.model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {f"model.layers.5.self_attn.{kind}_proj.weight" for kind in "qo"}
    assert all(torch.equal(value, before[key]) for key, value in aligned[0].state_dict().items())
    again = plant(replace(late), seed=0, base=aligned)
    assert all(torch.equal(value, again.model.state_dict()[key]) for key, value in made.model.state_dict().items())
