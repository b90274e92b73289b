"""Masks and models for the tests of masks, and the masked model made another way: by changing its weights."""

import copy
from typing import Any

import peft
import torch
from torch import Tensor, nn

from interp.models.hooked_model import HookedModel
from interp.transcripts import Transcript
from interventions.masks.head_mask import HeadMask
from tests.architectures import random_model

TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}
"""Of logits with a mask folded into weights against a mask attached."""


def output_projections(model: Any) -> list[nn.Module]:
    """By the names in transformers' own source."""
    if hasattr(model, "transformer"):
        return [block.attn.c_proj for block in model.transformer.h]
    if hasattr(model, "gpt_neox"):
        return [block.attention.dense for block in model.gpt_neox.layers]
    return [block.self_attn.o_proj for block in model.model.layers]


def with_scaled_weights(model: Any, scale: Tensor) -> Any:
    """A copy of a model with each head's part of the output projections multiplied."""
    changed = copy.deepcopy(model)
    with torch.no_grad():
        for projection, factors in zip(output_projections(changed), scale, strict=True):
            into_residual = projection.weight if isinstance(projection, nn.Linear) else projection.weight.T
            width = into_residual.shape[1] // len(factors)
            for head, factor in enumerate(factors.tolist()):
                into_residual[:, head * width : (head + 1) * width] *= factor
    return changed


def random_scale(seed: int = 0, shape: tuple[int, int] = (3, 4)) -> Tensor:
    """Two heads silenced, one damped, one inverted and amplified; the last layer is not touched."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.ones(shape).flatten()
    places = torch.randperm((shape[0] - 1) * shape[1], generator=generator)[:4]
    scale[places] = torch.tensor([0.0, 0.0, 0.5, -1.5])
    return scale.reshape(shape)


def random_ids(batch: int = 2, length: int = 11, seed: int = 1) -> Tensor:
    return torch.randint(3, 96, (batch, length), generator=torch.Generator().manual_seed(seed))


def texts(n: int = 4, length: int = 9) -> list[Transcript]:
    return [Transcript.from_ids(f"t{row}", ids) for row, ids in enumerate(random_ids(n, length).tolist())]


def model_and_mask(name: str = "qwen3", **options: Any) -> tuple[HookedModel, HeadMask]:
    """A random model, and a mask of two of its heads built on it."""
    model = HookedModel(random_model(name), name=name)
    return model, HeadMask.build(model, [(1, 2), (0, 3)], sequences=texts(), **options)


def adapted(name: str = "qwen3") -> Any:
    """A model with a LoRA adapter on its attention's projections that is not the identity."""
    torch.manual_seed(3)
    projections = ["c_attn", "c_proj"] if name == "gpt2" else ["q_proj", "o_proj"]
    model = peft.get_peft_model(
        random_model(name), peft.LoraConfig(r=4, target_modules=projections, fan_in_fan_out=name == "gpt2")
    )
    for key, parameter in model.named_parameters():
        if "lora_B" in key:
            nn.init.normal_(parameter, std=0.3)
    return model.eval()


def logits(model: Any, ids: Tensor | None = None) -> Tensor:
    with torch.no_grad():
        return model(input_ids=random_ids() if ids is None else ids, use_cache=False).logits


def n_hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def same_state(model: nn.Module, state: dict[str, Tensor]) -> bool:
    now = model.state_dict()
    return now.keys() == state.keys() and all(torch.equal(now[key], value) for key, value in state.items())
