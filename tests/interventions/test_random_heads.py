"""Random sets of heads: as many in each layer as were chosen, and none of the chosen."""

from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interp.errors import CliffscopeError
from interventions.random_heads import random_sets


@dataclass(frozen=True)
class Shape:
    n_layers: int
    n_heads: int
    n_kv_heads: int = 1


@given(st.data(), st.integers(1, 6), st.integers(2, 8), st.integers(0, 2**31))
def test_sets_are_matched_by_layer_and_hold_none_of_the_chosen(
    data: st.DataObject, la: int, he: int, seed: int
) -> None:
    every = [(layer, head) for layer in range(la) for head in range(he)]
    chosen = data.draw(st.lists(st.sampled_from(every), min_size=1, max_size=len(every) // 2, unique=True))
    sets = random_sets(Shape(la, he), chosen, 3, seed)
    assert sets == random_sets(Shape(la, he), chosen[::-1], 3, seed)
    for drawn in sets:
        assert len(set(drawn)) == len(chosen)
        assert not set(drawn) & set(chosen)
        wanted = Counter(layer for layer, _ in chosen)
        given_back = Counter(layer for layer, _ in drawn)
        for layer, count in wanted.items():
            assert given_back[layer] >= min(count, he - count)  # all that the layer has to give


def test_every_other_head_of_the_layer_is_drawn_equally_often() -> None:
    sets = random_sets(Shape(2, 8), [(1, 3)], 2000)
    counts = Counter(drawn[0] for drawn in sets)
    assert set(counts) == {(1, head) for head in range(8) if head != 3}
    assert max(counts.values()) < 1.3 * min(counts.values())


def test_too_many_chosen_heads_leave_nothing_to_compare_with() -> None:
    with pytest.raises(CliffscopeError, match="5 of 8 heads are chosen"):
        random_sets(Shape(2, 4), [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0)], 1)
