"""Opening what commands work on. Imports torch: only to be imported inside a command function."""

import hashlib
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from interp.errors import CliffscopeError
from interp.models.hooked_model import HookedModel
from interp.models.intervening import NothingChangedWarning
from interp.models.loading import ORGANISM
from interp.models.sites import resolve_layer

if TYPE_CHECKING:
    from interp.cli.steer_options import Steering

MASKED = " + mask "
"""In the name of a model between its own and which mask is on it."""

_NOISY = ("transformers", "transformer_lens", "huggingface_hub", "datasets")


def quiet_libraries() -> None:
    """Switches off the progress bars and notices of the libraries."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    for library in _NOISY:
        logging.getLogger(library).setLevel(logging.ERROR)


def open_model(name: str, device: str, dtype: str, *, mask: Path | None = None, chat: bool = True) -> HookedModel:
    """The model, loaded quietly: the libraries' own progress bars and notices are not this command's output.

    Args:
        name: See `HookedModel.load`.
        device: Its name, or `auto`.
        dtype: Its name, or `auto`.
        mask: A head mask to attach until the process ends. The model's name then tells which, so that results with
            and without it, or with another one, are never taken for each other.
        chat: Whether to refuse a model without a chat template. How a prompt is put to it would be a guess, and what
            is measured then is not how the model is used.

    Raises:
        CliffscopeError: If there is no such model, it has no chat template, or the mask is for another model.
    """
    from interventions.masks import HeadMask

    loaded = None if mask is None else HeadMask.load(mask)
    quiet_libraries()
    if name.startswith(ORGANISM):
        # So small a model runs no faster on several threads, and far slower where other programs want the cores.
        torch.set_num_threads(1)
    model = HookedModel.load(name, device=device, dtype=dtype)
    if chat:
        model.chat.require_template()
    if mask is not None and loaded is not None:
        with about(mask):
            loaded.attach(model)
        model.name = f"{name}{MASKED}{hashlib.sha256(mask.read_bytes()).hexdigest()[:8]}"
    return model


@contextmanager
def steered(model: HookedModel, steering: "Steering | None") -> Iterator[list[str]]:
    """The model with a vector active inside the block, and named so that its rollouts tell which vector and dose.

    Yields:
        A list; in it stands afterwards, in words, if the vector was active and changed nothing.

    Raises:
        CliffscopeError: If the vector does not fit the model.
    """
    idle: list[str] = []
    if steering is None:
        yield idle
        return
    told, intervention, _ = steering.on(model)
    name = model.name
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always", NothingChangedWarning)
        try:
            model.name = f"{name} + {told}"
            with model.intervene(intervention):
                yield idle
        finally:
            model.name = name
    for warning in seen:
        if issubclass(warning.category, NothingChangedWarning):
            idle.append(str(warning.message))
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def parse_layer(text: str) -> int | str:
    """A layer for a probe: `auto`, `norm` or a number. Raises `CliffscopeError` for anything else."""
    if text in ("auto", "norm"):
        return text
    try:
        return int(text)
    except ValueError as error:
        raise CliffscopeError(f"--layer {text!r}: expected auto, a number, or norm.") from error


def parse_layers(text: str, n_layers: int, option: str = "--layers") -> list[int]:
    """Layers from `all` or `0,4,8`. Raises `CliffscopeError`, naming the option, for anything else."""
    if text == "all":
        return list(range(n_layers))
    try:
        chosen = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise CliffscopeError(f"{option} {text!r}: expected `all` or numbers separated by commas.") from error
    return sorted({resolve_layer(layer, n_layers) for layer in chosen})


@contextmanager
def about(path: Path) -> Iterator[None]:
    """Puts the file's name before an error on its content that does not name it.

    Errors on the model's activations, and of writing, are not the file's.
    """
    try:
        yield
    except CliffscopeError as error:
        if str(path) in str(error) or "activations" in str(error) or isinstance(error.__cause__, OSError):
            raise
        raise CliffscopeError(f"{path}: {str(error).removeprefix('rollouts: ')}") from error


def require_writable(*outputs: Path, inputs: Sequence[Path | None] = ()) -> None:
    """Raises `CliffscopeError`, before any work, if a file cannot be written or is one that the command reads.

    Args:
        outputs: The files to write.
        inputs: The files to read; `None` stands for one that was not given.
    """
    for path in outputs:
        if path.is_dir():
            raise CliffscopeError(f"{path}: is a folder; give a file name.")
        if path.exists() and not path.is_file():
            raise CliffscopeError(f"{path}: is not a regular file, and writing would replace it; give another name.")
        existing = next(parent for parent in path.absolute().parents if parent.exists())
        if not existing.is_dir():
            raise CliffscopeError(f"{path}: cannot be written, {existing} is not a folder.")
        if not os.access(existing, os.W_OK | os.X_OK):
            raise CliffscopeError(f"{path}: cannot be written, no permission to write in {existing}.")
        for other in inputs:
            if other is not None and path.exists() and other.exists() and path.samefile(other):
                raise CliffscopeError(f"{path}: is an input of this command and would be replaced; give another name.")
