"""What of a model is trained: everything, low-rank adapters, or the parameters of chosen heads."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from interp.errors import CliffscopeError
from interp.models.hooked_model import HookedModel
from selection.repair.head_parameters import head_entries, linear_layers
from selection.repair.options import RepairOptions

if TYPE_CHECKING:
    from peft import LoraConfig

LORA_SCALE = 2
"""What an adapter's product is multiplied by."""


@dataclass(frozen=True, eq=False)
class TrainedPart:
    """What is trained.

    Attributes:
        module: The model to hand to a trainer; a PEFT model with adapters.
        entries: Of chosen heads, by parameter name: which entries are theirs. Empty if whole parameters are trained.
        lora: How the adapters are made; `None` if there are none.
        size: How many numbers are trained.
    """

    module: nn.Module
    entries: Mapping[str, Bool[Tensor, "..."]]
    lora: "LoraConfig | None"
    size: int

    def facts(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "parameters": self.size,
            "tensors": sorted(self.entries),
            "adapted": sorted(self.lora.target_modules or ()) if self.lora else [],
        }


def prepare(model: HookedModel, options: RepairOptions) -> TrainedPart:
    """Freezes what is not trained, and adds adapters if they are asked for; the model is changed in place.

    Raises:
        CliffscopeError: If the model lacks a head, or its query rows or linear layers cannot be found.
    """
    module, entries, lora = model.hf, {}, None
    if options.trainable == "heads":
        entries = head_entries(model, options.heads)
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(name in entries)
    elif options.trainable == "lora":
        from peft import get_peft_model

        lora = lora_config(model, options.lora_rank)
        torch.manual_seed(options.seed)
        module = get_peft_model(module, lora)
    else:
        module.requires_grad_(True)
    size = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
    return TrainedPart(module, entries, lora, sum(int(own.sum()) for own in entries.values()) or size)


def lora_config(model: HookedModel, rank: int) -> "LoraConfig":
    """Adapters for the linear layers of attention and MLP in every block, found in the model itself.

    Experts whose weights are one stacked tensor have no linear layers and get none.

    Raises:
        CliffscopeError: If there are none.
    """
    from peft import LoraConfig

    names = {id(module): name for name, module in model.hf.named_modules()}
    places = model.places
    layers = [
        layer
        for number in range(model.n_layers)
        for part in (places.attention(number), places.mlp(number))
        for layer in linear_layers(part).values()
    ]
    if not layers:
        raise CliffscopeError(f'{model.name}: no linear layers found for adapters; train with trainable="all".')
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=rank,
        lora_alpha=LORA_SCALE * rank,
        lora_dropout=0.0,
        target_modules=sorted(names[id(layer)] for layer in layers),
        fan_in_fan_out=not isinstance(layers[0], nn.Linear),
    )
