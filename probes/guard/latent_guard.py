"""The Latent Guard: is this prompt harmful, read from the states at `inst` without generating a token; and its file.

After Zhao et al. 2025 (arXiv 2507.11878). Departures: the threshold is calibrated (`probes.guard.threshold`) where the
paper flags at 0, and there is a second method, a probe (`probes.guard.readers`).
"""

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.errors import CliffscopeError
from interp.fitted_files import fitted_metadata, read_fitted
from interp.models.batching import Batch
from interp.models.capture import BATCH_TOKENS, stream, take_columns, token_indices
from interp.models.fingerprint import require_same_model
from interp.models.sites import resid_post
from interp.rollouts.prompts import Prompt
from interp.tensor_files import write_tensors
from probes.guard.readers import METHODS, Centroids, Method
from probes.linear import LinearProbe

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel
    from interp.transcripts import Transcript

FORMAT = "cliffscope.guard"
VERSION = "1"
POSITION = "inst"
"""Where a guard reads: the last token of the instruction."""


@dataclass(frozen=True, eq=False)
class LatentGuard:
    """A fitted guard: it flags a prompt whose score is above the threshold.

    Attributes:
        reader: Centroids of several layers, or a probe that knows its layer.
        threshold: In the unit of the scores.
        model: Name of the model that it reads.
        fingerprint: What the model is (architecture, sizes), to refuse another; empty if unknown.
        training: Facts of the fit that JSON can hold: what the threshold promises, held-out figures, ….

    Raises:
        CliffscopeError: If the threshold is not finite, or a probe does not know its layer.
    """

    reader: Centroids | LinearProbe
    threshold: float
    model: str | None = None
    fingerprint: Mapping[str, str] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not math.isfinite(self.threshold):
            raise CliffscopeError(f"guard: the threshold must be a finite number, found {self.threshold}.")
        if isinstance(self.reader, LinearProbe) and self.reader.layer is None:
            raise CliffscopeError("guard: the probe does not say which layer it reads.")

    @property
    def method(self) -> Method:
        """`centroids` or `probe`."""
        return "centroids" if isinstance(self.reader, Centroids) else "probe"

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers that are read, after whose blocks the residual stream is taken."""
        if isinstance(self.reader, Centroids):
            return self.reader.layers
        assert self.reader.layer is not None
        return (self.reader.layer,)

    @property
    def layer(self) -> int | None:
        """The layer, where only one is read."""
        return self.layers[0] if len(self.layers) == 1 else None

    @property
    def site(self) -> str | None:
        """The site, where only one is read."""
        return None if self.layer is None else resid_post(self.layer)

    @property
    def position(self) -> str:
        """`inst`, the last token of the instruction."""
        return POSITION

    @cached_property
    def digest(self) -> str:
        """Eight hexadecimal digits that change with anything that changes a flag."""
        digest = hashlib.sha256(json.dumps([self.method, list(self.layers), self.threshold]).encode())
        for _, tensor in sorted(self._tensors().items()):
            digest.update(tensor.contiguous().numpy().astype("<f4").tobytes())
        return digest.hexdigest()[:8]

    def score(
        self,
        model: "HookedModel",
        prompts: Sequence[Prompt],
        *,
        system: str | None = None,
        batch_tokens: int = BATCH_TOKENS,
    ) -> Float[np.ndarray, " prompt"]:
        """How harmful each prompt looks: one forward pass up to the deepest layer read, no token generated.

        Args:
            model: The model that the guard was made for; interventions that are active on it act.
            prompts: In any order; whether they are harmful is not looked at.
            system: The system prompt with which the model is used.
            batch_tokens: Token budget of a batch.

        Raises:
            CliffscopeError: If the model is another one, a prompt does not fit its context, or activations are NaN.
        """
        self.check_model(model.fingerprint, model.name)
        transcripts = prompt_transcripts(model, prompts, system)
        columns = token_indices(transcripts, [POSITION])
        sites = {resid_post(layer): layer for layer in self.layers}

        def at_inst(site: str, value: Tensor, batch: Batch) -> Tensor:
            index = columns[list(batch.rows)].to(value.device) + batch.start[:, None]
            return self._read(sites[site], take_columns(value, index)[:, 0]).cpu()

        scores = np.empty(len(prompts), dtype=np.float64)
        for batch, kept in stream(model, transcripts, list(sites), at_inst, batch_tokens):
            scores[list(batch.rows)] = torch.stack(list(kept.values())).double().mean(0).numpy()
        if not np.isfinite(scores).all():
            first = prompts[int(np.flatnonzero(~np.isfinite(scores))[0])].id
            raise CliffscopeError(
                f"Prompt {first!r}: the model's activations are NaN or infinite; try --dtype float32."
            )
        return scores

    def flags(
        self,
        model: "HookedModel",
        prompts: Sequence[Prompt],
        *,
        system: str | None = None,
        batch_tokens: int = BATCH_TOKENS,
    ) -> Bool[np.ndarray, " prompt"]:
        """Which prompts the guard would stop; see `score`."""
        return self.score(model, prompts, system=system, batch_tokens=batch_tokens) > self.threshold

    def _read(self, layer: int, h: Float[Tensor, "batch d_model"]) -> Float[Tensor, " batch"]:
        return self.reader.at(layer, h) if isinstance(self.reader, Centroids) else self.reader.logit(h)

    def check_model(self, fingerprint: Mapping[str, str], name: str) -> None:
        """Refuses a model that the guard was not made for; a guard without a fingerprint fits any.

        Raises:
            CliffscopeError: If the fingerprints differ, naming what differs.
        """
        require_same_model("guard", self.model, self.fingerprint, fingerprint, name, "fit one for this model")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the guard as safetensors, atomically; equal guards give equal bytes.

        Raises:
            CliffscopeError: If the file cannot be written or JSON cannot hold the training facts.
        """
        metadata = fitted_metadata(path, FORMAT, VERSION, self) | {"method": self.method}
        metadata |= {"layers": json.dumps(list(self.layers)), "threshold": json.dumps(self.threshold)}
        write_tensors(path, self._tensors(), metadata)

    def _tensors(self) -> dict[str, Tensor]:
        if isinstance(self.reader, Centroids):
            return {"harmful": self.reader.harmful, "benign": self.reader.benign}
        return {"weight": self.reader.weight, "bias": torch.tensor(self.reader.bias)}

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "LatentGuard":
        """Reads a guard.

        Raises:
            CliffscopeError: If the file is missing, not safetensors, not a guard, of another version, or holds
                wrong shapes, NaN, infinity or unreadable metadata.
        """
        tensors, metadata, place = read_fitted(path, "guard", FORMAT, VERSION)
        if (method := metadata.get("method")) not in METHODS:
            raise CliffscopeError(f"{path}: unknown guard method {method!r}; fit the guard again.")
        if {name: tensor.ndim for name, tensor in tensors.items()} != _TENSORS[method]:
            found = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in sorted(tensors.items()))
            raise CliffscopeError(
                f"{path}: a guard of method {method} has other tensors, found {found or 'none'}; fit it again."
            )
        try:
            layers = tuple(int(layer) for layer in json.loads(metadata["layers"]))
            threshold = float(json.loads(metadata["threshold"]))
        except (KeyError, TypeError, ValueError) as error:
            raise CliffscopeError(f"{path}: the guard's metadata cannot be read ({error}).") from error
        try:
            reader = _reader(method, tensors, layers)
            return cls(reader, threshold, place["model"], place["fingerprint"], place["training"])
        except CliffscopeError as error:
            raise CliffscopeError(f"{path}: {error}") from error


def prompt_transcripts(
    model: "HookedModel", prompts: Sequence[Prompt], system: str | None = None
) -> "list[Transcript]":
    """Prompts as tokens, which end where the model is to write. Raises `CliffscopeError` as the builder does."""
    return model.transcripts(system).prompts([prompt.text for prompt in prompts], [prompt.id for prompt in prompts])


def _reader(method: str, tensors: Mapping[str, Tensor], layers: tuple[int, ...]) -> Centroids | LinearProbe:
    if method == "centroids":
        return Centroids(layers, tensors["harmful"], tensors["benign"])
    if len(layers) != 1:
        raise CliffscopeError(f"guard: a probe reads one layer, found {len(layers)}.")
    return LinearProbe(tensors["weight"], float(tensors["bias"]), layer=layers[0], position=POSITION)


_TENSORS = {"centroids": {"harmful": 2, "benign": 2}, "probe": {"weight": 1, "bias": 0}}
"""The tensors of each method, with their numbers of axes."""
