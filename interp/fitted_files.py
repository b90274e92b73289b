"""What every safetensors file of something fitted on a model says about itself: format, place, fingerprint, facts.

The reader refuses another format or version, and metadata that cannot be read, with one line that names the file.
"""

import json
import os
from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor

from interp.errors import CliffscopeError
from interp.json_values import without_nan
from interp.tensor_files import read_tensors


class Fitted(Protocol):
    """What was fitted on one place of one model."""

    @property
    def model(self) -> str | None:
        """The model's name."""

    @property
    def fingerprint(self) -> Mapping[str, str]:
        """What the model is; empty if unknown."""

    @property
    def layer(self) -> int | None:
        """Index of the layer."""

    @property
    def site(self) -> str | None:
        """Name of the site."""

    @property
    def position(self) -> str | None:
        """Name of the position."""

    @property
    def training(self) -> Mapping[str, Any]:
        """Facts of the fit."""


def fitted_metadata(path: str | os.PathLike[str], form: str, version: str, fitted: Fitted) -> dict[str, str]:
    """The metadata of a file.

    Args:
        path: The file, for messages.
        form: Name of the format, for instance `cliffscope.direction`.
        version: Of the format.
        fitted: What is stored.

    Raises:
        CliffscopeError: If JSON cannot hold the training facts.
    """
    metadata = {"format": form, "version": version}
    for key in ("model", "layer", "site", "position"):
        if (value := getattr(fitted, key)) is not None:
            metadata[key] = str(value)
    metadata["fingerprint"] = json.dumps(dict(fitted.fingerprint), sort_keys=True)
    try:
        metadata["training"] = json.dumps(without_nan(dict(fitted.training)), sort_keys=True)
    except (TypeError, ValueError) as error:
        raise CliffscopeError(f"{path}: JSON cannot hold the training facts ({error}).") from error
    return metadata


def read_fitted(
    path: str | os.PathLike[str], what: str, form: str, version: str
) -> tuple[dict[str, Tensor], dict[str, str], dict[str, Any]]:
    """The tensors and the metadata of a file, and the metadata's place as keyword arguments of what is stored.

    Args:
        path: The file.
        what: What it should be, for messages, for instance `direction`.
        form: Name of the format.
        version: The version that is read.

    Raises:
        CliffscopeError: If the file is missing, not safetensors, of another format or version, or holds NaN, infinity
            or unreadable metadata.
    """
    tensors, metadata = read_tensors(path)
    if metadata.get("format") != form:
        raise CliffscopeError(
            f"{path}: not a {what} (format {metadata.get('format', 'missing')!r}, expected {form!r})."
        )
    if metadata.get("version") != version:
        raise CliffscopeError(
            f"{path}: {what} format version {metadata.get('version', 'missing')!r}; this Cliffscope reads version "
            f"{version!r}: fit the {what} again or change the Cliffscope version."
        )
    try:
        layer = int(metadata["layer"]) if "layer" in metadata else None
        fingerprint = json.loads(metadata.get("fingerprint", "{}"))
        training = json.loads(metadata.get("training", "{}"))
    except ValueError as error:
        raise CliffscopeError(f"{path}: the {what}'s metadata cannot be read ({error}).") from error
    if not (isinstance(fingerprint, dict) and isinstance(training, dict)):
        raise CliffscopeError(f"{path}: the {what}'s fingerprint and training must be JSON objects.")
    place = {
        "model": metadata.get("model"),
        "fingerprint": {key: str(value) for key, value in fingerprint.items()},
        "layer": layer,
        "site": metadata.get("site"),
        "position": metadata.get("position"),
        "training": training,
    }
    return tensors, metadata, place
