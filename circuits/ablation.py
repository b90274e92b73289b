"""The effect of ablating each head alone: exact, and without recomputing what the head cannot change.

A head's output z becomes `γ·z + (1 − γ)·mean`. With no mean and γ = 0 that is zero ablation (the refusal cliff paper,
Yin et al. 2025, arXiv 2510.06036, scales z_h by γ at all positions; unlike there, the attention's output is not scaled
back to its old norm); with a mean over reference rollouts it is mean ablation. A head whose ablation raises the refusal
logit suppresses refusal.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.sweeps.effects import Replace, SweepEffects
from circuits.sweeps.readouts import Readouts
from circuits.sweeps.tail import sweep_tail
from circuits.sweeps.whole import sweep_whole
from interp.errors import CliffscopeError
from interp.models.capture import BATCH_TOKENS

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel
    from interp.transcripts import Transcript

Scope = Literal["all", "from-edge"]
"""Where heads are changed: at all positions, or from the edge on, of which the edge alone matters at the edge."""


def ablation_sweep(
    model: "HookedModel",
    transcripts: "Sequence[Transcript]",
    readouts: Readouts,
    *,
    scope: Scope = "from-edge",
    gamma: float = 0.0,
    means: Float[Tensor, "layer head d_head"] | None = None,
    heads: Iterable[tuple[int, int]] | None = None,
    ablated: Iterable[tuple[int, int]] = (),
    batch_tokens: int = BATCH_TOKENS,
    advance: Callable[[int], object] = lambda rollouts: None,
) -> SweepEffects:
    """The readouts at the edge with each head alone ablated.

    Interventions and masks that are attached to the model act throughout.

    Args:
        model: The model; it is not changed.
        transcripts: Rollouts with an edge.
        readouts: What to read.
        scope: At all positions, or from the edge on.
        gamma: What is kept of a head's output: 0 ablates it, 1 changes nothing.
        means: What takes the place of the rest: a head's mean output over reference rollouts; zero if not given.
        heads: The heads to ablate, each alone; all if not given.
        ablated: Heads ablated in the base and in every variant alike.
        batch_tokens: Most tokens of a pass; see `sweep_tail` and `sweep_whole` for what is held besides.
        advance: Told how many rollouts more are done.

    Raises:
        CliffscopeError: If the scope is unknown, gamma or a mean is not finite, the means have another shape, and as
            `sweep_tail` and `sweep_whole` do.
    """
    if scope not in ("all", "from-edge"):
        raise CliffscopeError(f"scope {scope!r}: expected all or from-edge.")
    sweep = sweep_whole if scope == "all" else sweep_tail
    return sweep(
        model,
        transcripts,
        readouts,
        ablation(model, gamma, means),
        heads=heads,
        ablated=ablated,
        batch_tokens=batch_tokens,
        advance=advance,
    )


def ablation(
    model: "HookedModel", gamma: float = 0.0, means: Float[Tensor, "layer head d_head"] | None = None
) -> Replace:
    """The change z ↦ γ·z + (1 − γ)·mean, as a sweep takes it.

    Raises:
        CliffscopeError: If gamma or a mean is not finite, or the means have another shape.
    """
    if not math.isfinite(gamma):
        raise CliffscopeError(f"gamma: expected a finite number, found {gamma}.")
    if means is None:
        return lambda row, layer, z: gamma * z
    expected = (model.n_layers, model.n_heads, model.d_head)
    if means.shape != expected or not bool(means.isfinite().all()):
        raise CliffscopeError(
            f"means: expected finite values of shape [layer, head, d_head] = {list(expected)}, found "
            f"{list(means.shape)}{' with NaN or infinity' if means.shape == expected else ''}."
        )

    def replace(row: int, layer: int, z: Float[Tensor, "pos head d_head"]) -> Float[Tensor, "pos head d_head"]:
        return torch.lerp(means[layer].to(z).expand_as(z), z, gamma)

    return replace
