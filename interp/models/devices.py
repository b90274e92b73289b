"""Choosing a device and a precision by name, in one place, so that no other module names one."""

import torch

from interp.errors import CliffscopeError

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def best_device() -> torch.device:
    """The accelerator if this machine has one (CUDA, MPS, …), else the CPU."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return accelerator if accelerator is not None else torch.device("cpu")


def parse_device(name: str | torch.device | None) -> torch.device:
    """A device by name; `None` or `"auto"` is `best_device()`.

    Raises:
        CliffscopeError: If torch does not know the name or cannot reach the device.
    """
    if name is None or name == "auto":
        return best_device()
    try:
        device = torch.device(name)
        if device.type == "meta":
            raise RuntimeError("it holds no values")
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise CliffscopeError(f"Device {str(name)!r} cannot be used here: {reason}") from error
    return device


def parse_dtype(name: str | torch.dtype | None) -> torch.dtype | None:
    """A precision by name; `None` or `"auto"` keeps the checkpoint's own.

    Raises:
        CliffscopeError: If the name is not one of float32, bfloat16, float16, auto.
    """
    if name is None or name == "auto":
        return None
    if isinstance(name, torch.dtype):
        return name
    if name not in _DTYPES:
        raise CliffscopeError(f"Unknown dtype {name!r}: expected one of {', '.join(_DTYPES)}, auto.")
    return _DTYPES[name]
