"""KV caches: under which name a model is given one (transformers 5.24 changed it), and one that no pass changes."""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

OLD, NEW = "past_key_values", "cache"


def cache_option(module: Any, cache: Any) -> dict[str, Any]:
    """The cache as an argument of a model's or decoder's forward call, under the name that it takes."""
    return {NEW if NEW in inspect.signature(module.forward).parameters else OLD: cache}


def cache_in(carrier: Mapping[str, Any]) -> Any:
    """The cache among the arguments or in the output of a forward call; `None` if there is none."""
    return carrier.get(NEW) if carrier.get(NEW) is not None else carrier.get(OLD)


def new_cache() -> Any:
    """An empty cache that keeps all tokens.

    Made without the configuration: layers with a sliding window would drop what a tail's first tokens see.
    """
    from transformers import DynamicCache

    return DynamicCache()


@contextmanager
def unchanged(cache: Any) -> Iterator[None]:
    """Takes out again what passes inside the block add to a cache."""
    before = [(layer.keys, layer.values) for layer in cache.layers]
    try:
        yield
    finally:
        for layer, (keys, values) in zip(cache.layers, before, strict=True):
            layer.keys, layer.values = keys, values
