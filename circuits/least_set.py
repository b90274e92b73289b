"""The least set of heads that brings refusal back when it is zeroed, and what each head adds to the others in it.

Zeroing heads one at a time names too many and too few: a head that only hands on what a suppression head wrote brings
refusal back as well, a decoy does where another head is already gone, and of two that stand in for each other neither
does alone. In a set of which no head can be spared, only the sources are left. Steps:

1. Half of the prompts choose. Heads are zeroed one after another, always the one that raises the mean refusal logit
   most, until none raises it by `MIN_STEP` of what is to be explained. The first of many that suppress together raises
   it only a little.
2. Backwards: as long as there is a head without which the others do nearly as well (less than `MIN_SHARE` is lost), the
   one that is missed least is left out. What stood in the place of heads that came later goes here.
3. The other half judges: how much a head of the set adds to all others in it, and a head outside to the whole set; how
   much of that lies within what is to be explained, which ends where refused rollouts are; and what each does alone.

As in stepwise regression the choice is greedy, not exhaustive; the half that judges was not looked at to choose.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float

from circuits.cases import Cases
from circuits.exchange import Exchange
from circuits.head_scores import MIN_SHARE
from interp.models.capture import BATCH_TOKENS
from interp.significance import benjamini_hochberg, sign_flip_p
from interventions.heads import Head

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel

MIN_STEP = 0.01
"""The least share of what is to be explained for which the search goes on forwards."""

Raised = Callable[[Sequence[Sequence[Head]]], list[float]]
"""Sets of heads → the mean refusal logit when each is zeroed."""


class LeastSet(NamedTuple):
    """What was chosen and how it was judged.

    Attributes:
        heads: The set, in the order in which the heads were chosen.
        added: By how much a head raises the mean refusal logit beyond the set without it, in nats, on prompts that were
            not used to choose; NaN for heads that were no candidates.
        explained: The same, where no rise beyond the mean of refused rollouts counts.
        q: Of `added`, by a sign-flip permutation by prompt, after Benjamini–Hochberg over the candidates.
        alone: By how much zeroing a candidate alone raises it, on the same prompts.
        alone_q: Its q.
    """

    heads: tuple[Head, ...]
    added: Float[np.ndarray, "layer head"]
    explained: Float[np.ndarray, "layer head"]
    q: Float[np.ndarray, "layer head"]
    alone: Float[np.ndarray, "layer head"]
    alone_q: Float[np.ndarray, "layer head"]


def find_least_set(
    model: "HookedModel",
    cases: Cases,
    carriers: Sequence[Head],
    gap: float,
    level: float,
    *,
    seed: int = 0,
    batch_tokens: int = BATCH_TOKENS,
) -> LeastSet:
    """The least set among carriers and those heads that raise the refusal logit alone, and what each adds to it.

    A head may suppress in refused rollouts as well: then it carries none of the difference.

    Args:
        model: The model; interventions that are active on it act.
        cases: Their complied rollouts are used, and nothing else.
        carriers: Heads to choose from in any case.
        gap: What is to be explained, in nats.
        level: The mean refusal logit of refused rollouts.
        seed: Of the halves and the permutation.
        batch_tokens: Token budget of a pass.

    Raises:
        CliffscopeError: As `circuits.exchange.Exchange` does.
    """
    found = LeastSet((), *(np.full((model.n_layers, model.n_heads), np.nan) for _ in range(5)))
    prompts = np.array(cases.prompts("complied"))
    ours = np.isin(prompts, _half(prompts, seed))
    if ours.all():
        return found
    chooser = _exchange(model, cases, ours, batch_tokens)
    judge = _exchange(model, cases, ~ours, batch_tokens)

    def raised(sets: Sequence[Sequence[Head]]) -> list[float]:
        means: list[float] = chooser.of(*sets).double().mean(1).tolist()
        return means

    candidates = [*carriers, *(head for head in _raising(model, raised, gap) if head not in carriers)]
    if not candidates:
        return found
    heads = choose(candidates, raised, gap)
    without = [[other for other in heads if other != head] for head in candidates]
    sets = [*([*others, head] for others, head in zip(without, candidates, strict=True)), *without]
    values = judge.of(*sets, *([head] for head in candidates), []).double()
    with_head, without_it, alone, base = values.split([len(candidates)] * 3 + [1])
    at = tuple(zip(*candidates, strict=True))
    for rise, mean, q in (
        (with_head - without_it, found.added, found.q),
        (alone - base, found.alone, found.alone_q),
    ):
        mean[at] = rise.mean(1).numpy()
        q[at] = benjamini_hochberg(sign_flip_p(rise.T.numpy(), clusters=prompts[~ours], seed=seed))
    found.explained[at] = (with_head.mean(1).clamp(max=level) - without_it.mean(1).clamp(max=level)).numpy()
    return found._replace(heads=tuple(heads))


def choose(candidates: Sequence[Head], raised: Raised, gap: float) -> list[Head]:
    """Forwards, then backwards; the heads in the order in which they were chosen.

    Args:
        candidates: The heads to choose from.
        raised: Tells the mean refusal logit with a set of them zeroed.
        gap: What is to be explained, in nats.
    """
    chosen: list[Head] = []
    left = list(candidates)
    (now,) = raised([[]])
    while left:
        values = raised([[*chosen, head] for head in left])
        best = max(range(len(left)), key=values.__getitem__)
        if values[best] - now < MIN_STEP * gap:
            break
        now = values[best]
        chosen.append(left.pop(best))
    while chosen:
        values = raised([[other for other in chosen if other != head] for head in chosen])
        spared = max(range(len(chosen)), key=values.__getitem__)
        if now - values[spared] >= MIN_SHARE * gap:
            break
        now = values[spared]
        chosen.pop(spared)
    return chosen


def _raising(model: "HookedModel", raised: Raised, gap: float) -> list[Head]:
    """Heads that raise the mean refusal logit alone by `MIN_SHARE` of what is to be explained."""
    every = [Head(layer, head) for layer in range(model.n_layers) for head in range(model.n_heads)]
    before, *after = raised([[], *([head] for head in every)])
    return [head for head, value in zip(every, after, strict=True) if value - before >= MIN_SHARE * gap]


def _half(prompts: np.ndarray, seed: int) -> np.ndarray:
    drawn = np.random.default_rng(seed).permutation(np.unique(prompts))
    return drawn[: (len(drawn) + 1) // 2]


def _exchange(model: "HookedModel", cases: Cases, rows: np.ndarray, batch_tokens: int) -> Exchange:
    chosen = [transcript for transcript, mine in zip(cases.complied, rows, strict=True) if mine]
    return Exchange(model, chosen, None, batch_tokens=batch_tokens)
