"""The Hugging Face model inside whatever a training job has wrapped around it."""

from typing import Any

from torch import nn

from interp.models.hooked_model import HookedModel

_INSIDE = ("_orig_mod", "_fsdp_wrapped_module", "module")
"""Where wrappers keep what they wrap: torch.compile, FSDP's class, and DDP, DataParallel or DeepSpeed."""


def unwrap(model: Any) -> nn.Module:
    """The Hugging Face model, or its PEFT model, inside a `HookedModel` or wrappers of torch.

    `fully_shard` and `Module.compile` change a model in place and wrap nothing.
    """
    module: nn.Module = model.hf if isinstance(model, HookedModel) else model
    # Not by attribute: some wrappers hand on what they lack to what they wrap.
    inner = next((part for name in _INSIDE if (part := module._modules.get(name)) is not None), None)
    return module if inner is None else unwrap(inner)


def hooked(model: Any) -> HookedModel:
    """The unwrapped model as a `HookedModel`, which says where its parts are. Nothing is changed or copied.

    Raises:
        CliffscopeError: If the architecture cannot be mapped.
    """
    return model if isinstance(model, HookedModel) else HookedModel(unwrap(model))
