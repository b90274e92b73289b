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
from circuits.exchange import Exchange
from circuits.sweeps.readouts import REFUSAL_LOGIT, Readouts
from interp.errors import CliffscopeError
from interp.models.capture import BATCH_TOKENS
from interventions.heads import Head, check_heads

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel
    from interp.transcripts import Transcript

Trial = Callable[[Sequence[Head], Sequence[Head]], tuple[float, dict[Head, float]]]
"""`(gone, tried)` → the mean refusal logit with the heads `gone` ablated, and with each of `tried` ablated as well."""

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
    trial = _trial(model, transcripts, readouts, scope, gamma, means, batch_tokens, advance)
    steps: list[JointStep] = []
    alone: dict[Head, float] = {}
    while left and len(steps) < n:
        base, after = trial([step.head for step in steps], left)
        alone = alone or {head: value - base for head, value in after.items()}
        best = max(left, key=after.__getitem__)
        if after[best] - base < minimum:
            break
        steps.append(JointStep(best, after[best], after[best] - base, alone[best]))
        left.remove(best)
    return steps


def _trial(
    model: "HookedModel",
    transcripts: "Sequence[Transcript]",
    readouts: Readouts,
    scope: Scope,
    gamma: float,
    means: Float[Tensor, "layer head d_head"] | None,
    batch_tokens: int,
    advance: Callable[[int], object],
) -> Trial:
    """The trial by zeroing sets at the edge, which is quick, or else by a sweep."""
    if scope == "from-edge" and gamma == 0 and means is None:
        # Kept over the steps: what comes before the edge is the same in all of them.
        exchange = Exchange(model, transcripts, None, readouts=readouts, batch_tokens=batch_tokens)

        def by_sets(gone: Sequence[Head], tried: Sequence[Head]) -> tuple[float, dict[Head, float]]:
            sets = exchange.of(gone, *([*gone, head] for head in tried)).double().mean(dim=1).tolist()
            advance(len(transcripts))
            return sets[0], dict(zip(tried, sets[1:], strict=True))

        return by_sets

    def by_sweep(gone: Sequence[Head], tried: Sequence[Head]) -> tuple[float, dict[Head, float]]:
        effects = ablation_sweep(
            model,
            transcripts,
            Readouts(refusal_tokens=readouts.refusal_tokens),
            scope=scope,
            gamma=gamma,
            means=means,
            heads=tried,
            ablated=gone,
            batch_tokens=batch_tokens,
            advance=advance,
        )
        base, rise = float(effects.base.mean()), effects.effect(REFUSAL_LOGIT).mean(dim=0)
        return base, {head: base + float(rise[head]) for head in tried}

    return by_sweep
