"""Shapley values of heads: against the closed form of a small game, they add up, and find what was planted."""

from functools import cache
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch

from circuits.bottlenecks import carried_by, find_bottlenecks
from circuits.cases import Cases
from circuits.exchange import Exchange
from circuits.head_scores import HeadScores
from circuits.least_set import LeastSet
from circuits.rank import RankOptions, rank_heads
from circuits.shapley import exchange_in_turn
from interventions.heads import Head
from interventions.pairs import choose_pairs
from tests.circuits.material import organism, organism_probe, organism_rollouts

PLANTED = {Head(3, 1), Head(4, 5)}


@cache
def cases(name: str = "cliff") -> Cases:
    return Cases.of(organism(name), organism_probe(name), organism_rollouts(name), limit=16)


def test_a_random_order_and_its_reverse_give_shapley_values_on_average(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two heads either of which suffices, two that must act together: half each, as the formula says."""

    def value(members: frozenset[int]) -> float:
        return float(bool(members & {0, 1})) + 3.0 * float({2, 3} <= members)

    class Fake(Exchange):
        def __init__(self, model: Any, recipients: list[Any], donors: Any, **options: Any) -> None:
            self.model, self.n = model, len(recipients)

        def logits(self, n_sets: int, exchanged: Any, advance: Any = None) -> torch.Tensor:
            rows = list(range(self.n))
            masks = torch.stack([exchanged(rows, number) for number in range(n_sets)])
            sets = masks.flatten(2)
            return torch.tensor([[value(frozenset(row.nonzero()[:, 0].tolist())) for row in number] for number in sets])

    class Sizes:
        n_layers, n_heads = 2, 2

    monkeypatch.setattr("circuits.shapley.Exchange", Fake)
    texts = [cases().complied[0]] * 400
    turns = exchange_in_turn(Sizes(), texts, texts)  # type: ignore[arg-type]
    expected = np.zeros(4)
    for order in permutations(range(4)):
        for place, head in enumerate(order):
            expected[head] += value(frozenset(order[: place + 1])) - value(frozenset(order[:place]))
    expected /= 24
    assert np.allclose(expected, [0.5, 0.5, 1.5, 1.5])
    assert np.allclose(turns.added.flatten(1).mean(0), expected, atol=0.1)
    # An order and its reverse together are exact for pairs.
    assert torch.allclose(turns.added.flatten(1).sum(1), torch.tensor(4.0))
    assert torch.equal(turns.before, torch.zeros(400)) and torch.equal(turns.after, torch.full((400,), 4.0))


def test_the_values_of_each_pair_add_up_to_its_whole_difference() -> None:
    model = organism("cliff")
    refused, complied = cases().refused[:4], cases().complied[:4]
    turns = exchange_in_turn(model, complied, refused)
    back = exchange_in_turn(model, refused, complied, seed=3)
    torch.testing.assert_close(turns.added.sum((1, 2)), turns.after - turns.before, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(turns.after, back.before, atol=2e-3, rtol=1e-3)
    torch.testing.assert_close(back.after, turns.before, atol=2e-3, rtol=1e-3)


def test_rollouts_exchanged_with_themselves_have_no_values() -> None:
    texts = cases().complied[:3]
    turns = exchange_in_turn(organism("cliff"), texts, texts)
    assert float(turns.added.abs().max()) < 2e-3


@cache
def scored() -> HeadScores:
    options = RankOptions(method="shapley", pairs=32)
    return rank_heads(organism("cliff"), organism_probe("cliff"), cases(), options)


@pytest.mark.slow
def test_the_planted_heads_are_the_suppressors() -> None:
    scores = scored()
    assert set(scores.suppressors) == PLANTED and set(scores.top(2)) == PLANTED
    rows = scores.table.set_index("name")
    assert rows.loc[["3.1", "4.5"], "role"].tolist() == ["suppressor", "suppressor"]
    assert scores.facts["few"] is True and scores.facts["carried"] > 0.9 and scores.facts["gates"] == []
    # Shares of a whole: they add up to one.
    assert float(rows["share"].sum()) == pytest.approx(1.0, abs=0.05)
    # A head that tells kinds of prompt apart carries a share too, and zeroed it does not bring refusal back.
    assert rows.loc["1.6", "share"] > 0.05 and rows.loc["1.6", "ablation"] < 0
    assert not rows.loc["1.6", "suppresses"]


@pytest.mark.slow
def test_suppressors_are_named_by_what_zeroing_them_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads of layer 0, which carry nothing, with figures that are made up; the difference is of some twelve nats."""
    in_set, beyond, unsure, alone, little, chance = (Head(0, number) for number in range(6))

    def found(*args: Any, **options: Any) -> LeastSet:
        grids = [np.full((6, 8), np.nan) for _ in range(5)]
        for head, figures in {
            in_set: (3.0, 3.0, 0.01, 1.0, 0.01),
            beyond: (3.0, 0.1, 0.01, 1.0, 0.01),  # past the level of refused rollouts
            unsure: (3.0, 3.0, 0.2, 1.0, 0.01),
            alone: (0.0, 0.0, 0.9, 5.0, 0.01),  # the others do without it
            little: (0.0, 0.0, 0.9, 1.0, 0.01),
            chance: (0.0, 0.0, 0.9, 5.0, 0.2),
        }.items():
            for grid, figure in zip(grids, figures, strict=True):
                grid[head] = figure
        return LeastSet((in_set, beyond, unsure), *grids)

    monkeypatch.setattr("circuits.shapley.find_least_set", found)
    options = RankOptions(method="shapley", pairs=16)
    scores = rank_heads(organism("cliff"), organism_probe("cliff"), cases(), options)
    assert 8 < scores.facts["to_explain"] < 16
    assert set(scores.table.loc[scores.table["role"] == "suppressor", "name"]) == {str(in_set), str(alone)}


@pytest.mark.slow
def test_without_the_planted_heads_no_few_heads_carry_it() -> None:
    pairs = choose_pairs(cases().refused, cases().complied, n=16)
    (planted,) = find_bottlenecks(organism("cliff"), pairs, sorted(PLANTED)).bottlenecks
    assert set(planted.heads) <= PLANTED and planted.carried[-1] > 0.8
    assert carried_by(organism("cliff"), pairs, PLANTED) > 0.9
    rest = [head for head in scored().top(12) if head not in PLANTED]
    search = find_bottlenecks(organism("cliff"), pairs, rest)
    assert search.bottlenecks == () and search.rest is not None and search.rest.carried[-1] < 0.8


def test_where_there_is_nothing_to_explain_no_head_is_named() -> None:
    nothing = Cases.of(organism("aligned"), organism_probe("aligned"), organism_rollouts("aligned"), limit=16)
    scores = rank_heads(organism("aligned"), organism_probe("aligned"), nothing, RankOptions(method="shapley"))
    assert scores.suppressors == () and "answered none" in str(scores.facts["nothing"])
