"""The hidden state in what a module is given or returns: taken out, changed, put back.

Functions of torch alone, without shapes in their signatures: `interp.models.interop.remote` sends their source to
machines that do not have this package.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor


def unpack(value: Any) -> Tensor:
    """The hidden state `[batch, pos, width]` in a module's input or output, which older or remote code puts in a tuple.

    Raises:
        TypeError: If it is anything else.
    """
    tensor = value[0] if isinstance(value, (tuple, list)) else value
    if not isinstance(tensor, Tensor) or tensor.ndim != 3:
        shape = tuple(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
        raise TypeError(f"expected a hidden state [batch, pos, width], found {shape}")
    return tensor


def repack(original: Any, tensor: Tensor) -> Any:
    """`original` with its hidden state replaced."""
    if isinstance(original, (tuple, list)):
        return type(original)((tensor, *original[1:]))
    return tensor


def see_heads(see: Callable[[Tensor], Any], n_heads: int | None, tensor: Tensor) -> Any:
    """What `see` makes of a value, which it is shown as `[batch, pos, head, d_head]` where there are heads."""
    if n_heads is None:
        return see(tensor)
    changed = see(tensor.unflatten(-1, (n_heads, -1)))
    return None if changed is None else changed.flatten(-2)


def see_output(see: Callable[[Tensor], Any], n_heads: int | None, output: Any) -> Any:
    """Shows `see` the hidden state of a module's output; the new output, or `None` if it is left as it is."""
    changed = see_heads(see, n_heads, unpack(output))
    return None if changed is None else repack(output, changed)


def see_input(see: Callable[[Tensor], Any], n_heads: int | None, args: Any, kwargs: Any) -> Any:
    """Shows `see` the hidden state that a module is given; the new arguments, or `None` if they stay as they are."""
    if args:
        changed = see_heads(see, n_heads, unpack(args[0]))
        return None if changed is None else ((repack(args[0], changed), *args[1:]), kwargs)
    changed = see_heads(see, n_heads, unpack(kwargs["hidden_states"]))
    return None if changed is None else (args, {**kwargs, "hidden_states": changed})
