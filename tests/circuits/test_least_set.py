"""The least set of heads: in games whose answer is known, and in an organism by what joint ablation does."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from circuits.cases import Cases
from circuits.least_set import choose, find_least_set
from interventions.head_ablation import ScaleHeads
from interventions.heads import Head
from tests.circuits.material import organism, organism_probe, organism_rollouts

A, B, C, D, E = (Head(0, number) for number in range(5))
Value = Callable[[frozenset[Head]], float]


def chosen(value: Value, gap: float = 1.0, candidates: Sequence[Head] = (A, B, C, D, E)) -> set[Head]:
    return set(choose(candidates, lambda sets: [value(frozenset(heads)) for heads in sets], gap))


def mediated(zeroed: frozenset[Head]) -> float:
    """A and B suppress; most of what A writes acts through C, which alone shows as much as B."""
    return (0.6 if A in zeroed else 0.4 * (C in zeroed)) + 0.4 * (B in zeroed)


def redundant(zeroed: frozenset[Head]) -> float:
    """Either of A and B suffices to suppress; a trace of each shows alone."""
    return 1.0 if {A, B} <= zeroed else 0.02 * len(zeroed & {A, B})


def spread(zeroed: frozenset[Head]) -> float:
    """All of four suppress, none of them shows much alone, and E does nothing."""
    return (len(zeroed & {A, B, C, D}) / 4) ** 2.5


def decoy(zeroed: frozenset[Head]) -> float:
    """C brings refusal back best of all, but adds nothing where A and B are gone."""
    true = len(zeroed & {A, B})
    return 1.0 if true == 2 else 0.7 + 0.05 * true if C in zeroed else 0.5 * true


@pytest.mark.parametrize(
    ("value", "expected"),
    [(mediated, {A, B}), (redundant, {A, B}), (spread, {A, B, C, D}), (decoy, {A, B}), (lambda zeroed: 0.0, set())],
)
def test_only_heads_that_cannot_be_spared_are_left(value: Value, expected: set[Head]) -> None:
    assert chosen(value) == expected
    # Whatever the order in which the candidates stand.
    assert chosen(value, candidates=(E, D, C, B, A)) == expected
    # In larger units with a larger whole it is the same.
    assert chosen(lambda zeroed: 7 * value(zeroed), gap=7.0) == expected


@pytest.mark.slow
def test_what_a_head_adds_is_what_ablating_it_too_does() -> None:
    model = organism("cliff")
    cases = Cases.of(model, organism_probe("cliff"), organism_rollouts("cliff"), limit=12)
    candidates = [Head(3, 1), Head(4, 5), Head(1, 6)]
    found = find_least_set(model, cases, candidates, gap=12.0, level=100.0)
    assert set(found.heads) == {Head(3, 1), Head(4, 5)}
    assert np.isfinite(found.added).sum() == np.isfinite(found.q).sum() == 3
    np.testing.assert_allclose(found.explained, found.added, rtol=1e-9)  # the level is far above
    from circuits.exchange import Exchange

    prompts = np.array(cases.prompts("complied"))
    drawn = np.random.default_rng(0).permutation(np.unique(prompts))
    judged = [
        transcript
        for transcript, prompt in zip(cases.complied, prompts, strict=True)
        if prompt not in set(drawn[: (len(drawn) + 1) // 2])
    ]

    def logit(heads: Sequence[Head]) -> float:
        with model.intervene(ScaleHeads(heads, "from-edge", gamma=0.0)):
            return float(Exchange(model, judged, None).of([])[0].mean())

    both = logit([Head(3, 1), Head(4, 5)])
    assert found.added[3, 1] == pytest.approx(both - logit([Head(4, 5)]), abs=2e-3)
    assert found.added[1, 6] == pytest.approx(logit(candidates) - both, abs=2e-3)
    before = float(Exchange(model, judged, None).of([])[0].mean())
    for head in candidates:
        assert found.alone[head] == pytest.approx(logit([head]) - before, abs=2e-3)
    assert found.alone_q[4, 5] < 0.05
    lower = find_least_set(model, cases, candidates, gap=12.0, level=both - 1.0)
    np.testing.assert_array_equal(lower.added, found.added)
    assert lower.explained[3, 1] == pytest.approx(both - 1.0 - logit([Head(4, 5)]), abs=2e-3)


def test_heads_that_raise_it_alone_are_candidates_whatever_they_carry() -> None:
    model = organism("cliff")
    cases = Cases.of(model, organism_probe("cliff"), organism_rollouts("cliff"), limit=12)
    assert set(find_least_set(model, cases, [], gap=12.0, level=4.0).heads) == {Head(3, 1), Head(4, 5)}
    # Of so large a whole none of them makes a twentieth.
    none = find_least_set(model, cases, [], gap=1e6, level=4.0)
    assert none.heads == () and all(np.isnan(grid).all() for grid in (none.added, none.explained, none.q))
