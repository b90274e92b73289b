"""The file of a head mask: safetensors with one tensor, `scale`, and string metadata.

| key | value |
|---|---|
| `format`, `version` | `cliffscope.head_mask`, `1` |
| `renormalize` | `true` or `false` |
| `fraction` | masked heads as a share of all, for people; follows from `scale` |
| `model`, `method` | names; left out where unknown |
| `fingerprint`, `facts` | JSON objects |
| `expected` | JSON: see `ExpectedEffect`; left out where not measured |

RECIPE.md beside this module reads it without this project.
"""

import json
import os
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from interp.errors import CliffscopeError
from interp.tensor_files import read_tensors, write_tensors
from interventions.masks.expected_effect import ExpectedEffect
from interventions.masks.fit import shape_in_words
from interventions.masks.head_mask import HeadMask

FORMAT = "cliffscope.head_mask"
VERSION = "1"


def write_mask(mask: HeadMask, path: str | os.PathLike[str]) -> None:
    """Writes a mask; equal masks give equal bytes. Raises as `HeadMask.save`."""
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "renormalize": "true" if mask.renormalize else "false",
        "fraction": f"{mask.fraction:.6g}",
        "fingerprint": json.dumps(dict(mask.fingerprint), sort_keys=True),
    }
    if mask.expected is not None:
        metadata["expected"] = json.dumps(mask.expected.to_json(), sort_keys=True)
    for key in ("model", "method"):
        if (value := getattr(mask, key)) is not None:
            metadata[key] = str(value)
    try:
        metadata["facts"] = json.dumps(dict(mask.facts), sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise CliffscopeError(f"{path}: JSON cannot hold the mask's facts ({error}).") from error
    write_tensors(path, {"scale": mask.scale}, metadata)


def read_mask(path: str | os.PathLike[str]) -> HeadMask:
    """Reads a mask. Raises as `HeadMask.load`."""
    tensors, metadata = read_tensors(path)
    _check_header(path, tensors, metadata)
    fingerprint = {key: str(value) for key, value in _json(path, metadata, "fingerprint").items()}
    _check_shape(path, tensors["scale"], fingerprint)
    expected = _json(path, metadata, "expected") if "expected" in metadata else None
    facts = _json(path, metadata, "facts")
    try:
        return HeadMask(
            tensors["scale"],
            metadata["renormalize"] == "true",
            metadata.get("model"),
            fingerprint,
            metadata.get("method"),
            facts,
            None if expected is None else ExpectedEffect.from_json(expected),
        )
    except CliffscopeError as error:
        raise CliffscopeError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise CliffscopeError(f"{path}: its expected effect cannot be read ({error!r}); build it again.") from error


def _check_header(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Refuses a safetensors file that is not a head mask of this version."""
    found = metadata.get("format")
    if found != FORMAT:
        raise CliffscopeError(f"{path}: not a head mask (format {found or 'missing'!r}, expected {FORMAT!r}).")
    if metadata.get("version") != VERSION:
        raise CliffscopeError(
            f"{path}: head mask of version {metadata.get('version', 'missing')!r}; this Cliffscope reads version "
            f"{VERSION!r}: build the mask again or change the Cliffscope version."
        )
    if metadata.get("renormalize") not in ("true", "false"):
        raise CliffscopeError(f"{path}: renormalize must be 'true' or 'false', found {metadata.get('renormalize')!r}.")
    if set(tensors) != {"scale"} or tensors["scale"].ndim != 2:
        shapes = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in sorted(tensors.items()))
        raise CliffscopeError(f"{path}: expected scale [n_layers, n_heads], found {shapes or 'no tensors'}.")


def _check_shape(path: str | os.PathLike[str], scale: Tensor, fingerprint: Mapping[str, str]) -> None:
    """Refuses a scale that is not over the heads of the model that the file says it is for."""
    sizes = tuple(
        fingerprint.get(key, str(found)) for key, found in zip(("n_layers", "n_heads"), scale.shape, strict=True)
    )
    if sizes != tuple(map(str, scale.shape)):
        raise CliffscopeError(
            f"{path}: scale is {shape_in_words(scale, fingerprint.get('n_kv_heads'))}, but the file is for a model of "
            f"{sizes[0]} layers of {sizes[1]} query heads."
        )


def _json(path: str | os.PathLike[str], metadata: Mapping[str, str], key: str) -> dict[str, Any]:
    try:
        content = json.loads(metadata.get(key, "{}"))
    except ValueError as error:
        raise CliffscopeError(f"{path}: {key} in the mask's metadata is not JSON ({error}).") from error
    if not isinstance(content, dict):
        raise CliffscopeError(f"{path}: {key} in the mask's metadata must be a JSON object.")
    return content
