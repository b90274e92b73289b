"""Norms as linear maps: with its scale frozen at what it was for a token, a norm's output is affine in its input.

    y = s · g ⊙ (x − mean(x)) + b        LayerNorm; RMSNorm does not subtract the mean and has no b
    w·y = s · pull(w)·x + w·b            for any direction w on the output

Gain g, bias b and whether the mean is subtracted are read off the module's behaviour, so that no table of norm classes
is needed (one multiplies by w, another by 1 + w). The scale s of a token is fitted to the norm's input and output
there, and the fit is checked: a module that is no such norm is refused by name.

Freezing the scale is the usual convention of direct logit attribution (Elhage et al. 2021, A Mathematical Framework for
Transformer Circuits): exact for what was added up, silent about how a part changes the scale of the others.
"""

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.errors import CliffscopeError
from interp.models.replaced import replaced_forward

_AMPLITUDE = 64.0
"""Of the vectors that a norm is tried on: large, so that the epsilon under its root is nothing beside their square."""


@dataclass(frozen=True, eq=False)
class FrozenNorm:
    """What a norm does beside its scale.

    Attributes:
        gain: g, float32 on the CPU.
        bias: b, zero where there is none.
        centres: Whether the mean over the width is subtracted.
        name: What errors call it.
        tolerance: The largest part of an output, by norm, that may be left unexplained by the fit of its scale.
    """

    gain: Float[Tensor, "d_model"]
    bias: Float[Tensor, "d_model"]
    centres: bool
    name: str
    tolerance: float

    @classmethod
    @torch.no_grad()
    def of(cls, norm: nn.Module, d_model: int, name: str, dtype: torch.dtype = torch.float32) -> "FrozenNorm":
        """Reads off a norm's gain, bias and centring; hooks on the module do not act.

        Args:
            norm: The module, which maps `[..., d_model]` to the same shape.
            d_model: Its width.
            name: What errors call it, for instance `ln_final`.
            dtype: In which the module computes, for a module without parameters; it sets the tolerance, which is
                1e-5 plus four units in the last place.
        """
        parameter = next(norm.parameters(), torch.empty(0, dtype=dtype))
        sign = torch.ones(d_model, dtype=parameter.dtype, device=parameter.device)
        constant = sign * _AMPLITUDE
        sign[1::2] = -1
        tried = torch.stack([_AMPLITUDE * sign, -_AMPLITUDE * sign, constant])[None]
        above, below, flat = norm.forward(tried)[0].float().cpu()
        bias, gain = (above + below) / 2, (above - below) / 2 * sign.float().cpu()
        centres = bool((flat - bias).norm() < 0.5 * gain.norm())
        return cls(gain, bias, centres, name, 1e-5 + 4 * torch.finfo(parameter.dtype).eps)

    def pull(self, w: Float[Tensor, "d_model"]) -> Float[Tensor, "d_model"]:
        """The direction on the input, before the scale, whose projection is that of `w` on the output."""
        pulled = self.gain.to(w.device) * w.float()
        return pulled - pulled.mean() if self.centres else pulled

    def constant(self, w: Float[Tensor, "d_model"]) -> float:
        """w·b: what the norm adds along `w` whatever its input."""
        return float(self.bias @ w.float().cpu())

    def scales(self, x: Float[Tensor, "... d_model"], y: Float[Tensor, "... d_model"]) -> Float[Tensor, "..."]:
        """The scale s of each token, from the norm's input and output there.

        Raises:
            CliffscopeError: If the output is not a multiple of what this norm would make of the input.
        """
        x, y, gain = x.float(), y.float() - self.bias.to(y.device), self.gain.to(x.device)
        unscaled = gain * (x - x.mean(-1, keepdim=True) if self.centres else x)
        scale = (unscaled * y).sum(-1) / unscaled.square().sum(-1)
        left = (y - scale[..., None] * unscaled).norm(dim=-1) / y.norm(dim=-1)
        if not bool(((left <= self.tolerance) & (scale > 0)).all()):  # also where it is NaN
            raise CliffscopeError(
                f"{self.name}: its output is not a scaled copy of its input ({float(left.max()):.1e} of it is left, "
                f"{self.tolerance:.1e} allowed): it is no LayerNorm or RMSNorm, or an intervention changes it; "
                "attribution cannot go through it."
            )
        return scale


@contextmanager
def frozen_scales(module: nn.Module) -> Iterator[None]:
    """Makes gradients pass every norm inside a module as if its scale were a constant; values stay as they are.

    A norm is a module without children whose class is called one.

    Raises:
        CliffscopeError: In a pass, if such a module is no LayerNorm or RMSNorm.
    """
    frozen: dict[str, FrozenNorm] = {}

    def forward(name: str, norm: nn.Module, x: Tensor) -> Tensor:
        y = norm.forward(x.detach()).detach()
        if name not in frozen:
            frozen[name] = FrozenNorm.of(norm, x.shape[-1], name, x.dtype)
        scale, gain = frozen[name].scales(x.detach(), y), frozen[name].gain.to(x.device)
        change = (x - x.detach()).float()  # zero, with x's gradient
        if frozen[name].centres:
            change = change - change.mean(-1, keepdim=True)
        return y + (scale[..., None] * gain * change).to(y.dtype)

    with ExitStack() as stack:
        for name, part in module.named_modules():
            if "norm" in type(part).__name__.lower() and not list(part.children()):
                # A shallow copy has the same parameters and keeps its own forward.
                stack.enter_context(replaced_forward(part, partial(forward, name, copy.copy(part))))
        yield
