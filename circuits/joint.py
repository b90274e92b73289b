"""Heads that matter together: a greedy choice, for redundant heads of which each alone shows little.

Where two heads do the same, ablating one leaves the other and single ablation finds neither. So heads are chosen one
after another: each step ablates, together with those already chosen, the head that raises the mean refusal logit most.
A pair that only shows when both are gone is found if the first of the two shows at all, however little: the choice is
greedy, not exhaustive.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from jaxtyping import Float
from torch import Tensor

from circuits.ablation import Scope, ablation_sweep
from circuits.sweeps.readouts import REFUSAL_LOGIT, Readouts
from interp.errors import CliffscopeError
from interp.models.capture import BATCH_TOKENS
from interventions.heads import Head, check_heads

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel
    from interp.transcripts import Transcript

MINIMUM = 0.05
"""The least rise of the mean refusal logit, in nats, for which another head is ablated."""


class JointStep(NamedTuple):
    """One head more.

    Attributes:
        head: The head chosen.
        refusal_logit: The mean refusal logit with it and those before it ablated.
        rise: By how much it raised the mean.
        alone: By how much it raised the mean alone, before any was chosen.
    """

    head: Head
    refusal_logit: float
    rise: float
    alone: float


def greedy(
    model: "HookedModel",
    transcripts: "Sequence[Transcript]",
    readouts: Readouts,
    *,
    n: int,
    candidates: Iterable[tuple[int, int]] | None = None,
    scope: Scope = "from-edge",
    gamma: float = 0.0,
    means: Float[Tensor, "layer head d_head"] | None = None,
    minimum: float = MINIMUM,
    batch_tokens: int = BATCH_TOKENS,
    advance: Callable[[int], object] = lambda rollouts: None,
) -> list[JointStep]:
    """Up to `n` heads in the order in which they are chosen; fewer when none raises the mean refusal logit any more.

    Args:
        model: The model; it is not changed.
        transcripts: Rollouts that answered what is to be refused.
        readouts: With refusal tokens.
        n: Most heads.
        candidates: The heads to choose from; all if not given. Each step is a sweep over them.
        scope: As for `circuits.ablation.ablation_sweep`; so are `gamma`, `means` and `batch_tokens`.
        gamma: What is kept of a head's output.
        means: What takes the place of the rest.
        minimum: Stop where no head raises the mean refusal logit by as much, in nats.
        batch_tokens: Most tokens of a pass.
        advance: Told how many rollouts more are done, `len(transcripts)` for each step.

    Raises:
        CliffscopeError: If there is no transcript, `n` is below 1 or there are no refusal tokens; and as
            `ablation_sweep` does.
    """
    if not transcripts or n < 1 or readouts.refusal_tokens is None:
        raise CliffscopeError(
            f"joint search: needs rollouts, at least one head and refusal tokens; found {len(transcripts)} rollouts, "
            f"n = {n} and {'no' if readouts.refusal_tokens is None else 'some'} refusal tokens."
        )
    left = [Head(layer, head) for layer in range(model.n_layers) for head in range(model.n_heads)]
    if candidates is not None:
        left = list(check_heads(candidates, model))
    only_refusal = Readouts(refusal_tokens=readouts.refusal_tokens)
    steps: list[JointStep] = []
    alone: Tensor | None = None
    while left and len(steps) < n:
        effects = ablation_sweep(
            model,
            transcripts,
            only_refusal,
            scope=scope,
            gamma=gamma,
            means=means,
            heads=left,
            ablated=[step.head for step in steps],
            batch_tokens=batch_tokens,
            advance=advance,
        )
        rise = effects.effect(REFUSAL_LOGIT).mean(dim=0)
        alone = rise if alone is None else alone
        best = max(left, key=lambda head: float(rise[head]))
        if float(rise[best]) < minimum:
            break
        after = float(effects.base.mean()) + float(rise[best])
        steps.append(JointStep(best, after, float(rise[best]), float(alone[best])))
        left.remove(best)
    return steps
