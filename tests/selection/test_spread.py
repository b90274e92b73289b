"""Categories in turns, and near-duplicates against a comparison of all pairs."""

from collections import Counter
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interp.organisms import sample_prompts
from selection.spread import NearDuplicates, pieces_of, round_robin, similarity


def test_categories_in_turns() -> None:
    items = ["a1", "a2", "b1", "a3", "c1", "b2", "a4"]
    assert list(round_robin(items, lambda item: item[0])) == ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers())), st.integers(0, 20))
def test_cut_anywhere_categories_are_even_and_their_order_is_kept(items: list[tuple[str, int]], n: int) -> None:
    spread = list(round_robin(items, lambda item: item[0]))
    assert Counter(spread) == Counter(items)
    for name in "abcd":
        assert [item for item in spread if item[0] == name] == [item for item in items if item[0] == name]
    taken, there = Counter(name for name, _ in islice(spread, n)), Counter(name for name, _ in items)
    assert all(taken[a] <= taken[b] + 1 for a in there for b in there if taken[b] < there[b])


def test_pieces_and_similarity() -> None:
    assert pieces_of("Ab-c, D e?") == {"ab c ", "b c d", " c d ", "c d e"}
    assert pieces_of("Hi") == pieces_of("hi!") == {"hi"}
    assert similarity(pieces_of("abcdef"), pieces_of("abcdeg")) == pytest.approx(1 / 3)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.9, 1.0])
def test_near_duplicates_are_those_of_all_pairs(threshold: float) -> None:
    texts = [prompt.text for kind in ("harmful", "benign") for prompt in sample_prompts(kind, 150, seed=3)]
    texts += [text.upper() + "!" for text in texts[:20]]
    kept: list[frozenset[str]] = []
    expected = []
    for text in texts:
        pieces = pieces_of(text)
        expected.append(all(similarity(pieces, other) < threshold for other in kept))
        kept += [pieces] if expected[-1] else []
    same = NearDuplicates(threshold)
    found = [same.is_new(text) for text in texts]
    assert 20 <= expected.count(False) == same.found
    assert found == expected
