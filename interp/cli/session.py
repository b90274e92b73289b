"""Opening what commands work on. Imports torch: only to be imported inside a command function."""

import logging
import os
import warnings
from pathlib import Path

from interp.errors import CliffscopeError
from interp.model import HookedModel
from interp.sites import resolve_layer


def open_model(name: str, device: str, dtype: str) -> HookedModel:
    """The model, loaded quietly: the libraries' own progress bars and notices are not this command's output."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    logging.getLogger("transformer_lens").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    return HookedModel.load(name, device=device, dtype=dtype)


def parse_layers(text: str, n_layers: int) -> list[int]:
    """Layers from `all` or `0,4,8`. Raises `CliffscopeError` for anything else."""
    if text == "all":
        return list(range(n_layers))
    try:
        chosen = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise CliffscopeError(f"--layers {text!r}: expected `all` or numbers separated by commas.") from error
    return sorted({resolve_layer(layer, n_layers) for layer in chosen})


def require_parent(path: Path) -> None:
    """Raises `CliffscopeError` before any work if `path` cannot be written where it is asked for."""
    if path.is_dir():
        raise CliffscopeError(f"{path}: is a folder; give a file name.")
    existing = next(parent for parent in path.absolute().parents if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise CliffscopeError(f"{path}: cannot be written in {existing}.")
