"""The repaired model as a plain checkpoint: the base, loaded afresh, with what was trained put into it.

So what was not trained is the base's to the last bit, no wrapper of a trainer or adapter is left in it, and the weights
have the precision of the base's own checkpoint.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp.models.loading import load_checkpoint
from selection.repair.trainable import TrainedPart

ADAPTER = "adapter"
"""The folder of the adapter in the checkpoint's."""


def write_model(base: str, part: TrainedPart, state: Mapping[str, Tensor], folder: Path, keep_adapter: bool) -> None:
    """Writes config, generation settings, tokenizer with its chat template, and weights.

    Args:
        base: What the training began from.
        part: What was trained.
        state: The trained module's whole state dict.
        folder: To write into.
        keep_adapter: Write the adapter, too.
    """
    hf, tokenizer = load_base(base)
    dtypes = {name: value.dtype for name, value in hf.state_dict().items()}
    hf.float()  # adapters are merged before anything is rounded
    if part.lora is not None:
        hf = _merged(hf, part.lora, state, folder / ADAPTER if keep_adapter else None)
    elif part.entries:
        _put_entries(hf, part.entries, state)
    else:
        hf.load_state_dict(state)
    rounded = {name: value.to(dtypes[name]) for name, value in hf.state_dict().items()}
    # The config tells the precision in which the weights are loaded again.
    hf.to(dtype=next(dtypes[name] for name, _ in hf.named_parameters()))
    hf.save_pretrained(folder, state_dict=rounded)
    tokenizer.save_pretrained(folder)


def load_base(base: str) -> tuple[Any, Any]:
    """The model to repair and its tokenizer, on the CPU and in the precision of its checkpoint."""
    return load_checkpoint(base, "cpu", None, None, None, False)


def _put_entries(hf: Any, entries: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    parameters = dict(hf.named_parameters())
    with torch.no_grad():
        for name, own in entries.items():
            own, trained = own.cpu(), state[name].cpu()
            if not torch.equal(parameters[name][~own], trained[~own]):
                raise RuntimeError(f"{name}: entries outside the chosen heads were changed by the training.")
            parameters[name][own] = trained[own]


def _merged(hf: Any, lora: Any, state: Mapping[str, Tensor], adapter: Path | None) -> Any:
    from peft import get_peft_model, set_peft_model_state_dict

    model = get_peft_model(hf, lora)
    own = {name.replace(".default", ""): value for name, value in state.items() if ".lora_" in name}
    result: Any = set_peft_model_state_dict(model, own)
    if result.unexpected_keys:
        raise RuntimeError(f"adapter: unexpected {result.unexpected_keys[:3]}.")
    if adapter is not None:
        model.save_pretrained(adapter)
    return model.merge_and_unload()
