"""The same architecture with newly drawn weights: a model in which there is nothing to find.

The weights come from the checkpoint's own initialization, as its `config.json` and its class in transformers define it.
What an analysis reports of such a model it reports of the texts, the tokenizer and the architecture, not of anything
that training made (arXiv 2512.18792).
"""

import copy
from typing import Any

import torch

from interp.errors import CliffscopeError
from interp.models.hooked_model import HookedModel


def reinitialized(model: HookedModel, seed: int = 0) -> HookedModel:
    """A second model like this one, with weights drawn anew; no checkpoint is read and this one stays as it is.

    It has the same tokenizer, chat format, precision, attention implementation and device. What was attached to the
    model, such as a head mask, is not on the new one. It is drawn on the CPU, so that a seed gives the same weights
    whatever the device, and takes as much memory again.

    Args:
        model: What to copy all but the weights of.
        seed: Of the weights. The global random state is left as it was.

    Raises:
        CliffscopeError: If the weights are quantized or carry adapters: those have no initialization of their own.
    """
    hf = model.hf
    config: Any = getattr(hf, "config", None)
    if not hasattr(type(hf), "_from_config") or hasattr(hf, "peft_config"):
        raise CliffscopeError(
            f"{model.name}: {type(hf).__name__} has no initialization of its own to draw random weights from; "
            "merge adapters into the checkpoint first."
        )
    if getattr(config, "quantization_config", None) is not None:
        raise CliffscopeError(f"{model.name} is quantized and cannot be initialized anew; load it unquantized.")
    with torch.random.fork_rng(devices=[]):
        # Not `torch.manual_seed`, which would seed accelerators too, and these are not put back.
        torch.default_generator.manual_seed(seed)
        drawn = type(hf)._from_config(
            copy.deepcopy(config), dtype=model.dtype, attn_implementation=config._attn_implementation
        )
    drawn.generation_config = copy.deepcopy(hf.generation_config)
    made = HookedModel(drawn.eval().to(model.device), model.tokenizer, name=f"{model.name} (random weights {seed})")
    if "chat" in vars(model):
        made.chat = model.chat
    return made
