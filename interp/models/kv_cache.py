"""How a Hugging Face model is given its KV cache and gives it back: the name changed in transformers 5.24."""

import inspect
from collections.abc import Mapping
from typing import Any

OLD, NEW = "past_key_values", "cache"


def cache_option(module: Any, cache: Any) -> dict[str, Any]:
    """The cache as an argument of a model's or decoder's forward call, under the name that it takes."""
    return {NEW if NEW in inspect.signature(module.forward).parameters else OLD: cache}


def cache_in(carrier: Mapping[str, Any]) -> Any:
    """The cache among the arguments or in the output of a forward call; `None` if there is none."""
    return carrier.get(NEW) if carrier.get(NEW) is not None else carrier.get(OLD)
