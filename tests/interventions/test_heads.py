"""Names of heads."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interp.errors import CliffscopeError
from interp.models.hooked_model import HookedModel
from interventions.heads import Head, check_heads, parse_heads
from tests.architectures import random_model


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 200)), min_size=1, unique=True))
def test_heads_are_read_as_they_are_written(pairs: list[tuple[int, int]]) -> None:
    heads = tuple(Head(*pair) for pair in pairs)
    assert parse_heads(", ".join(map(str, heads))) == heads


@pytest.mark.parametrize("text", ["", "3", "3.", "3.1.2", "-1.2", "3,1", "a.b", "3.1,,4.5"])
def test_what_is_no_head_is_named(text: str) -> None:
    with pytest.raises(CliffscopeError, match=r"expected LAYER\.HEAD"):
        parse_heads(text)


def test_heads_a_model_lacks_are_refused_with_the_reason() -> None:
    model = HookedModel(random_model("qwen3"))  # 3 layers, 4 query heads, 2 key-value heads
    assert check_heads([(2, 3), (0, 1), (2, 3)], model) == (Head(0, 1), Head(2, 3))
    with pytest.raises(CliffscopeError, match="there is no layer 3: layers are 0 to 2"):
        check_heads([(3, 0)], model)
    with pytest.raises(CliffscopeError, match="query heads 0 to 3; the 2 key-value heads"):
        check_heads([(1, 4)], model)
    with pytest.raises(CliffscopeError, match=r"query heads 0 to 3\.$"):
        check_heads([(1, 4)], HookedModel(random_model("gpt_neox")))
    with pytest.raises(CliffscopeError, match="none is given"):
        check_heads([], model)
