"""Loading checkpoints: from the hub, from a folder, or a bundled organism, with errors in one line."""

from pathlib import Path
from typing import Any

import torch

from interp.errors import CliffscopeError
from interp.models.devices import parse_device, parse_dtype

ORGANISM = "organism:"
"""The prefix of the models that come with the package."""


def load_checkpoint(
    name_or_path: str,
    device: str | torch.device | None,
    dtype: str | torch.dtype | None,
    revision: str | None,
    attn_implementation: str | None,
    trust_remote_code: bool,
) -> tuple[Any, Any]:
    """A causal LM in evaluation mode on its device, and its tokenizer. See `HookedModel.load`.

    Raises:
        CliffscopeError: If there is no such model or it cannot be loaded.
    """
    place, precision = parse_device(device), parse_dtype(dtype)
    if name_or_path.startswith(ORGANISM):
        from interp.organisms import load_organism

        organism: Any
        organism, tokenizer = load_organism(name_or_path.removeprefix(ORGANISM))
        if attn_implementation is not None:
            organism.set_attn_implementation(attn_implementation)
        return organism.to(device=place, dtype=precision), tokenizer
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = resolve_source(name_or_path)
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
        # Where the files are missing, transformers makes an empty one and says nothing.
        if not tokenizer.encode("Hello", add_special_tokens=False):
            raise OSError("it has no tokenizer (tokenizer.json); save the tokenizer beside the model.")
        hf = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=precision or "auto",
            attn_implementation=attn_implementation,
            use_safetensors=True,
            **options,
        )
    # Whatever is wrong with a checkpoint (missing files, unknown types, no network) surfaces here as one of these.
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CliffscopeError(f"Model {name_or_path!r} cannot be loaded: {reason}") from error
    return hf.eval().to(device=place), tokenizer


def resolve_source(name_or_path: str) -> str:
    """An absolute path for a local folder (a bare name would be asked of the hub first), else the name itself.

    Raises:
        CliffscopeError: If it is written like a path and there is no such folder.
    """
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise CliffscopeError(f"Model {name_or_path!r}: the folder has no config.json; expected a checkpoint.")
        return str(path.resolve())
    if path.is_file():
        raise CliffscopeError(f"Model {name_or_path!r}: is a file; give the folder of a checkpoint.")
    if path.is_absolute() or name_or_path.startswith((".", "~")) or name_or_path.count("/") > 1:
        raise CliffscopeError(f"Model {name_or_path!r}: no such folder.")
    return name_or_path
