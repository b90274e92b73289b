"""The cache under the name that a model takes it by, without a notice of deprecation."""

import warnings
from types import SimpleNamespace

import pytest
import torch

from interp.models.hooks import token_index
from interp.models.kv_cache import cache_in, cache_option
from interp.organisms import load_organism


def test_a_model_takes_its_cache_without_a_warning_and_gives_it_back() -> None:
    model, _ = load_organism("cliff")
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = model(input_ids=ids).logits[:, -1]
        first = model.model(input_ids=ids[:, :3], use_cache=True)
        last = model(input_ids=ids[:, 3:], use_cache=True, **cache_option(model, cache_in(first)))
    assert torch.allclose(whole, last.logits[:, -1], atol=1e-5)


@pytest.mark.parametrize("name", ["cache", "past_key_values"])
def test_both_names_are_understood(name: str) -> None:
    parameters = {"cache": lambda *, cache=None: cache, "past_key_values": lambda *, past_key_values=None: None}
    assert cache_option(SimpleNamespace(forward=parameters[name]), 1) == {name: 1}
    held = SimpleNamespace(get_seq_length=lambda: 7)
    assert cache_in({name: held}) is held and cache_in({}) is None
    # Without a mask a token's place is counted from the cache.
    assert token_index((torch.zeros(2, 3, dtype=torch.long),), {name: held}).tolist() == [[7, 8, 9]] * 2
