"""Keeping the norm of what a layer's heads write together, token by token."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


def keep_norm(
    projection: nn.Module, before: Float[Tensor, "batch pos head d_head"], after: Float[Tensor, "batch pos head d_head"]
) -> Float[Tensor, "batch pos head d_head"]:
    """`after`, scaled at each token so that the heads together write a vector of the same norm as before.

    The output projection is linear, so a factor on z is the same factor on what is written. Its bias is no head's and
    is left out. Where nothing is written any more there is nothing to scale.

    Args:
        projection: The layer's output projection, whose hooks are not called.
        before: z as it was.
        after: z as changed.
    """
    old, new = (written(projection, z).norm(dim=-1) for z in (before, after))
    factor = torch.where(new > 0, old / new.clamp(min=torch.finfo(torch.float32).tiny), torch.ones_like(new))
    return (after.float() * factor[:, :, None, None]).to(after.dtype)


def written(projection: nn.Module, z: Float[Tensor, "batch pos head d_head"]) -> Float[Tensor, "batch pos d_model"]:
    """What a layer's heads write into the residual stream together, without the projection's bias; in float32."""
    output: Tensor = projection.forward(z.flatten(-2)).float()
    bias = getattr(getattr(projection, "base_layer", projection), "bias", None)  # a LoRA wrapper has a base layer
    return output if bias is None else output - bias.float()
