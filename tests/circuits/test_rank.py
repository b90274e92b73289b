"""Ranking by any method: each finds what was planted, and puts down what later steps need."""

import pytest

from circuits.ablation_scores import score_ablation
from circuits.cases import Cases
from circuits.rank import METHODS, N_EXAMPLES, RankOptions, check_gamma, examples_of, n_steps, rank_heads
from interp.errors import CliffscopeError
from interventions.heads import Head
from tests.circuits.material import organism, organism_probe, organism_rollouts

LIMIT = 16


@pytest.fixture(scope="module")
def cases() -> Cases:
    return Cases.of(organism("cliff"), organism_probe("cliff"), organism_rollouts("cliff"), limit=LIMIT)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_ranks_the_planted_heads_first(method: str, cases: Cases) -> None:
    told: list[int] = []
    options = RankOptions(method=method, pairs=16)  # type: ignore[arg-type]
    scores = rank_heads(organism("cliff"), organism_probe("cliff"), cases, options, told.append)
    assert scores.method == method and scores.facts["nothing"] is None
    assert set(scores.top(2)) == {Head(3, 1), Head(4, 5)} <= set(scores.suppressors)
    assert len(scores.table) == 48 and scores.table["rank"].tolist() == list(range(1, 49))
    # The tokens of a few complied rollouts up to their edge, so that a mask's effect can be measured on them.
    expected = [list(transcript.input_ids) for transcript in cases.complied[:N_EXAMPLES]]
    assert scores.facts["examples"] == expected and len(expected) == 3
    assert sum(told) == n_steps(cases, options) == {"interchange": 2 * 16, "shapley": 4 * 16}.get(method, LIMIT)


def test_options_reach_the_method(cases: Cases) -> None:
    model, probe = organism("cliff"), organism_probe("cliff")
    found = rank_heads(model, probe, cases, RankOptions(scope="all", gamma=0.5, seed=3))
    expected = score_ablation(model, probe, cases, scope="all", gamma=0.5, seed=3)
    assert found.table.equals(expected.table)
    assert {"scope": "all", "gamma": 0.5, "seed": 3}.items() <= found.facts.items()


def test_examples_come_back_as_texts_that_end_at_their_edge(cases: Cases) -> None:
    found = rank_heads(organism("cliff"), organism_probe("cliff"), cases, RankOptions(method="attribution"))
    texts = examples_of(found)
    assert texts is not None
    assert [text.input_ids for text in texts] == [text.input_ids for text in cases.complied[:N_EXAMPLES]]
    assert all(text.edge == len(text) - 1 for text in texts)


def test_where_nothing_is_to_be_explained_no_head_is_named() -> None:
    model, probe = organism("aligned"), organism_probe("aligned")
    cases = Cases.of(model, probe, organism_rollouts("aligned"), limit=LIMIT)
    for method in METHODS:
        found = rank_heads(model, probe, cases, RankOptions(method=method))
        assert found.suppressors == () and "answered none of the 64" in found.facts["nothing"]
        assert found.facts["examples"] == [] and examples_of(found) is None


def test_bad_options_are_refused() -> None:
    with pytest.raises(CliffscopeError, match="'edge'"):
        RankOptions(positions=("close:-1", "edge"))
    with pytest.raises(CliffscopeError, match="gamma 1: expected a finite number other than 1"):
        RankOptions(gamma=1.0)
    with pytest.raises(CliffscopeError, match="gamma inf"):
        check_gamma(float("inf"))
    check_gamma(-1.0)
