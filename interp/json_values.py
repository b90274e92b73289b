"""Values as JSON holds them."""

import json
import math
from collections.abc import Mapping
from typing import Any


def without_nan(value: Any) -> Any:
    """NaN and infinities become null, which JSON has."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(entry) for entry in value]
    return value


def as_json_holds(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts as a file gives them back: NaN and infinities as `None`, tuples as lists.

    Raises:
        TypeError: If JSON cannot hold a value.
    """
    held: dict[str, Any] = json.loads(json.dumps(without_nan(facts)))
    return held
