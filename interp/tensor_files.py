"""Safetensors files with metadata, whose bytes depend on their content alone.

The format is one length, one JSON header and the raw tensors. The safetensors library writes the metadata in
an order that changes from run to run; here keys are sorted, so that equal content gives equal files.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from interp.errors import CliffscopeError
from interp.files import write_atomically


def write_tensors(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes float32 tensors and metadata as one safetensors file, atomically.

    Args:
        path: The file to make or replace.
        tensors: By name; stored as float32, sorted by name.
        metadata: Stored sorted by key.

    Raises:
        CliffscopeError: If the file cannot be written.
    """
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    data = bytearray()
    for name, tensor in sorted(tensors.items()):
        values = tensor.detach().to(device="cpu", dtype=torch.float32).contiguous()
        start = len(data)
        data += values.numpy().astype("<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [start, len(data)]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the tensors start at a multiple of 8 bytes
    whole = len(text).to_bytes(8, "little") + text + bytes(data)
    write_atomically(path, lambda partial: partial.write_bytes(whole))


def read_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors (float32, on the CPU) and the metadata of a safetensors file.

    Raises:
        CliffscopeError: If the file is missing, is not in the safetensors format, or holds NaN or infinity.
    """
    path = Path(path)
    if not path.is_file():
        raise CliffscopeError(f"{path}: no such file.")
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}
    except (SafetensorError, OSError, ValueError) as error:
        raise CliffscopeError(f"{path}: not a safetensors file ({str(error).splitlines()[0]}).") from error
    for name, tensor in tensors.items():
        broken = tensor.numel() - int(torch.isfinite(tensor).sum())
        if broken:
            raise CliffscopeError(f"{path}: {broken} NaN or infinite values in {name!r}; make it again.")
    return tensors, metadata
