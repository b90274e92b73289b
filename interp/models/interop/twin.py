"""A second module tree over the same tensors, for libraries that change the modules of a model that they are given.

TransformerLens puts its own modules in place of a model's, and nnsight its own `forward` on each. On a twin neither
shows in the user's model: it keeps its modules, names, hooks and outputs. A twin's parameters and buffers are the very
objects of the model, so a weight changed in one is changed in the other, and it costs no memory worth speaking of.
What is *not* shared is the tree: modules added or moved to another device later are so on one side only.
"""

import copy
from typing import TYPE_CHECKING, Any

from torch import nn

from interp.errors import CliffscopeError

_CAPTURING = "transformers.utils.output_capturing"

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel


def twin(model: "HookedModel", what_for: str) -> Any:
    """A copy of a model's modules that shares its parameters and buffers, without hooks.

    Args:
        model: Not changed.
        what_for: The library, for messages.

    Raises:
        CliffscopeError: If hooks are on the model, which would silently not act in the other library.
    """
    hf = model.hf
    _refuse_hooks(hf, model.name, what_for)
    shared: dict[int, Any] = {}
    for module in hf.modules():
        for tensor in (*module._parameters.values(), *module._buffers.values()):
            shared[id(tensor)] = tensor
        for name, value in vars(module).items():
            if name.startswith(("_forward", "_backward")) and "_hooks" in name:
                shared[id(value)] = type(value)()
    # What the memo holds is taken instead of being copied.
    made = copy.deepcopy(hf, shared)
    for module in made.modules():
        # Without it transformers would take its own hooks, which are gone, for installed.
        vars(module).pop("_output_capturing_hooks_installed", None)
    return made


def _refuse_hooks(hf: nn.Module, name: str, what_for: str) -> None:
    hooked = [path for path, module in hf.named_modules() if _hooks_of_others(module)]
    if hooked:
        raise CliffscopeError(
            f"{name} has hooks on {len(hooked)} modules ({hooked[0] or 'the model'} first), which would not act in "
            f"{what_for}: detach masks, leave `intervene`, remove other hooks, and give interventions to the library "
            "as its own hooks instead (see interp/models/interop/README.md)."
        )


def _hooks_of_others(module: nn.Module) -> bool:
    """Whether there are hooks but those that transformers leaves behind where hidden states were asked for."""
    hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    return any(getattr(hook, "__module__", "") != _CAPTURING for hook in hooks)
