"""`SharedBridge`: a TransformerBridge that does not own its weights; importing this module imports TransformerLens."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.generalized_components.joint_qkv_attention import JointQKVAttentionBridge

from interp.errors import CliffscopeError

_OWN = "make a bridge of its own with TransformerBridge.boot_transformers"


class SharedBridge(TransformerBridge):
    """A bridge over another model's weights. It refuses what would change or move them under that model.

    Everything else is TransformerBridge's.
    """

    def process_weights(self, *args: Any, **options: Any) -> None:
        """Refused: some of it writes to the weights in place (the experts of a mixture, for instance)."""
        raise CliffscopeError(
            "this bridge shares its weights with a Hugging Face model, and processing (folding norms, centering) would "
            f"change them there: call enable_compatibility_mode(no_processing=True), or {_OWN}."
        )

    def enable_compatibility_mode(  # type: ignore[override]  # what else it takes is passed on
        self, disable_warnings: bool = False, no_processing: bool = False, **options: Any
    ) -> None:
        """As TransformerLens', without processing of weights."""
        if not no_processing:
            self.process_weights()
        super().enable_compatibility_mode(disable_warnings, no_processing=True, **options)

    def to(self, *args: Any, **options: Any) -> "SharedBridge":
        """Refused unless it changes nothing: the parameters are another model's, and its buffers would stay behind."""
        options.pop("print_details", None)
        device, dtype, *_ = torch._C._nn._parse_to(*args, **options)
        parameter = next(self.original_model.parameters())
        if device not in (None, parameter.device) or dtype not in (None, parameter.dtype):
            raise self._refusal()
        return self

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> "SharedBridge":
        raise self._refusal()

    def _refusal(self) -> CliffscopeError:
        return CliffscopeError(
            "this bridge shares its weights with a Hugging Face model and cannot be moved or cast alone: move or cast "
            f"that model and make a new bridge from it, or {_OWN}."
        )


class _Rows(nn.Module):
    """Some output rows of a linear layer, as a layer: reads that layer's weight whenever it is used."""

    _fused: Any
    _rows: torch.Tensor

    def __init__(self, fused: nn.Module, rows: torch.Tensor) -> None:
        super().__init__()
        self.__dict__["_fused"] = fused  # it is a module of the tree already
        self.register_buffer("_rows", rows, persistent=False)

    @property
    def weight(self) -> torch.Tensor:
        weight: torch.Tensor = self._fused.weight
        return weight[self._rows]

    @property
    def bias(self) -> torch.Tensor | None:
        bias: torch.Tensor | None = getattr(self._fused, "bias", None)
        return None if bias is None else bias[self._rows]

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        return linear(value, self.weight, self.bias)


def read_fused_projections(bridge: TransformerBridge) -> list[str]:
    """Makes a bridge read q, k and v from a fused projection where it has copied them out of it.

    TransformerLens takes a fused projection apart when a bridge is made. Where the three lie side by side its parts are
    views; where they are interleaved head by head (GPT-NeoX) they are copies, which cost memory and go stale.

    Returns:
        Names of layers that still hold copies.
    """
    left: list[str] = []
    for name, module in bridge.named_modules():
        if not isinstance(module, JointQKVAttentionBridge):
            continue
        attention: Any = module
        fused = attention.qkv.original_component
        parts = [attention.q, attention.k, attention.v]
        if all(_storage(part.weight) == _storage(fused.weight) for part in parts):
            continue
        rows = _rows_of_parts(attention, fused, parts)
        if rows is None:
            left.append(name)
            continue
        for part, mine in zip(parts, rows, strict=True):
            part.set_original_component(_Rows(fused, mine.to(fused.weight.device)))
    return left


def _rows_of_parts(attention: Any, fused: Any, parts: list[Any]) -> list[torch.Tensor] | None:
    """Which rows of a fused projection q, k and v are; `None` if they are not just rows of it."""
    n, width = fused.weight.shape
    numbers = torch.arange(n, dtype=torch.float32)
    numbered = SimpleNamespace(weight=numbers[:, None].expand(n, width).clone(), bias=numbers.clone())
    with torch.random.fork_rng(devices=[]):
        split = attention.split_qkv_matrix(SimpleNamespace(**{attention.submodules["qkv"].name: numbered}))
    found = [part.weight[:, 0].long() for part in split]
    for rows, part in zip(found, parts, strict=True):
        if part.weight.shape != (len(rows), width) or not torch.equal(fused.weight[rows], part.weight):
            return None
    return found


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
