"""Shapley values of heads under interchange: shares of the whole effect that add up, whatever stands in for what.

Ablating or exchanging one head at a time misreads heads that act together. Of two heads each of which suffices,
removing either changes nothing; of two that must both act, adding either changes nothing; and zeroing a gate takes away
its yes and its no. So heads are exchanged in sets (`circuits.exchange`), and a head's score is what it adds on average
when it joins the heads exchanged before it, over random orders: its Shapley value (Shapley 1953; for the parts of a
network Ghorbani and Zou 2020, arXiv 2002.09815). For each pair of a refused and a complied rollout:

1. A random order of all heads. Into the complied run the refused rollout's z is put head by head in this order, and
   into the refused run the complied one's; after each head the refusal logit is read. The same in the reverse order.
2. A head's value is the rise (in the refused run the fall) at its turn, the mean of both orders and both directions.

With all heads exchanged the refusal logit is the other rollout's, so the values of a pair add up to its whole
difference: a share of a head means something when heads are redundant, and that of a set is the sum of its heads'. One
order of one pair costs as many tokens as there are heads, beside what comes before the edge.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.bottlenecks import MIN_CARRIED, Bottleneck, carried_by, find_bottlenecks, most_heads
from circuits.cases import Cases, to_explain
from circuits.exchange import Exchange
from circuits.head_scores import MAX_Q, MIN_SHARE, HeadScores
from circuits.interchange import prompts_by_id
from circuits.least_set import LeastSet, find_least_set
from interp.models.capture import BATCH_TOKENS
from interp.transcripts import Transcript
from interp.transcripts.positions import EDGE
from interventions.heads import Head
from interventions.pairs import N_PAIRS, by_rollout, choose_pairs
from probes.linear import LinearProbe

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel


MIN_ALONE = 0.2
"""The least share of the difference that comes back with a head zeroed alone, where others of the set do without it."""
MOST_CARRIERS = 24
"""Heads with evidence that are searched for the least set and for gates, best first."""


class Turns(NamedTuple):
    """What happened as heads joined one after another.

    Attributes:
        before: The refusal logit with no head exchanged.
        after: With all of them.
        added: By how much each head changed it at its turn, the mean of both orders.
    """

    before: Float[Tensor, " rollout"]
    after: Float[Tensor, " rollout"]
    added: Float[Tensor, "rollout layer head"]


def exchange_in_turn(
    model: "HookedModel",
    recipients: Sequence[Transcript],
    donors: Sequence[Transcript],
    *,
    seed: int = 0,
    batch_tokens: int = BATCH_TOKENS,
    advance: Callable[[int], object] = lambda rollouts: None,
) -> Turns:
    """Puts donors' z at the edge into recipients, head after head, in a random order for each and its reverse.

    Args:
        model: The model; interventions that are active on it act.
        recipients: Whose passes are changed.
        donors: Whose z is put there, one a recipient.
        seed: Of the orders.
        batch_tokens: Token budget of a pass over what comes before the edges.
        advance: Told how many recipients more are done in one of the two orders.

    Raises:
        CliffscopeError: As `Exchange` does.
    """
    n_heads = model.n_layers * model.n_heads
    generator = torch.Generator().manual_seed(seed)
    turn = torch.stack([torch.randperm(n_heads, generator=generator) for _ in recipients])
    exchange = Exchange(model, recipients, donors, batch_tokens=batch_tokens)
    ways = [_along(exchange, order, advance) for order in (turn, n_heads - 1 - turn)]
    added = ((ways[0][1] + ways[1][1]) / 2).unflatten(1, (model.n_layers, model.n_heads))
    return Turns(ways[0][0][0], ways[0][0][-1], added)


def _along(
    exchange: Exchange, turn: Int[Tensor, "rollout head"], advance: Callable[[int], object]
) -> tuple[Float[Tensor, "set rollout"], Float[Tensor, "rollout head"]]:
    """The logits as heads join at their turns, and what each head adds at its own."""

    def exchanged(rows: Sequence[int], number: int) -> Bool[Tensor, "row layer head"]:
        return (turn[list(rows)] < number).unflatten(1, (exchange.model.n_layers, exchange.model.n_heads))

    logits = exchange.logits(turn.shape[1] + 1, exchanged, advance)
    return logits, logits.diff(dim=0).T.gather(-1, turn)


def score_shapley(
    model: "HookedModel",
    probe: LinearProbe,
    cases: Cases,
    *,
    n_pairs: int = N_PAIRS,
    seed: int = 0,
    batch_tokens: int = BATCH_TOKENS,
    advance: Callable[[int], object] = lambda rollouts: None,
) -> HeadScores:
    """Heads by their Shapley value under exchange; named as suppressors or as gates.

    A head is named by either of two:

    - It is a *suppressor*. Either it belongs to the least set of heads that, zeroed in complied rollouts, brings
      refusal back (`circuits.least_set`), and on prompts that did not choose the set it adds at least `MIN_SHARE` of
      the difference to the others in it, with a q below `MAX_Q`. Of heads that only tell the kinds of prompt apart, or
      hand on a little of what suppressors write, none does. What it adds beyond the level of refused rollouts counts
      only if the head carries `MIN_SHARE` of the difference itself: that level is all there is to explain. Or zeroing
      it alone brings back `MIN_ALONE` of the difference, with a q below `MAX_Q`, though others of the set do without
      it: a head that acts through another, or on what another writes.
    - It is a *gate*: with the suppressors left out, it belongs to a few heads that carry nearly all of the difference
      (`circuits.bottlenecks`). Zeroing a gate says nothing, for its yes and its no are gone at once.

    Named heads come first in the table, then the others by their score. Intervals and p are over rollouts and by
    prompt, as in `circuits.interchange.screen`. Columns of the table's own: `sufficiency` and `necessity`, the values
    of either direction; `ablation` and `ablation_q`, what zeroing it adds to zeroing the least set (NaN for heads that
    were no candidates), `ablation_explained`, how much of that lies below the level of refused rollouts, and
    `ablation_alone`, what zeroing it alone does; `role`, `suppressor`, `gate` or nothing. Facts: `gates`, the
    bottlenecks among other heads than suppressors, each with `heads` and `carried`; `rest`, the heads with which that
    search ended; `carried`, the share of the difference that all named heads carry together, and `few`, whether that is
    nearly all of it and they are few.

    Args:
        model: The model.
        probe: Not read; a method takes the same arguments as any other.
        cases: The rollouts.
        n_pairs: Different pairs; all there are if there are fewer.
        seed: Of the choice of pairs, orders, bootstrap and permutation.
        batch_tokens: Token budget of a pass.
        advance: Told how many pairs more are done in one direction and order.

    Raises:
        CliffscopeError: If there are too few rollouts, a pair does not align, or as `Exchange` does.
    """
    facts: dict[str, Any] = {"positions": [EDGE], "probe_site": probe.site}
    if cases.nothing is not None:
        return HeadScores.nothing("shapley", model, cases.nothing, facts)
    pairs = choose_pairs(cases.refused, cases.complied, n=n_pairs, seed=seed)
    refused, complied = [pair.refused for pair in pairs], [pair.complied for pair in pairs]
    options: dict[str, Any] = {"batch_tokens": batch_tokens, "advance": advance}
    rise = exchange_in_turn(model, complied, refused, seed=seed, **options)
    fall = exchange_in_turn(model, refused, complied, seed=seed + 1, **options)
    gap = to_explain(rise.before, fall.before)
    names, of_rollouts = by_rollout(((rise.added - fall.added) / 2).double().numpy(), pairs)
    prompt = prompts_by_id(cases)

    def scores(named: Bool[np.ndarray, "layer head"] | None, **more: Any) -> HeadScores:
        clusters = [prompt[name] for name in names]
        return HeadScores.of(
            "shapley", model, of_rollouts, to_explain=gap, clusters=clusters, named=named, seed=seed, **more
        )

    first = scores(None)
    carriers = _carriers(first)
    level = float(fall.before.mean())
    least = find_least_set(model, cases, carriers, gap, level, seed=seed, batch_tokens=batch_tokens)
    strong = first.grid("share") >= MIN_SHARE
    suppresses = _suppress(least, {head for head in carriers if strong[head]}, gap)
    # Of heads that are too weak to be named no gate is made, however many of them carry it together.
    others = [head for head in carriers if strong[head] and not suppresses[head]]
    search = find_bottlenecks(model, pairs, others, batch_tokens=batch_tokens)
    gates = np.zeros_like(suppresses)
    for head in (head for found in search.bottlenecks for head in found.heads):
        gates[head] = True
    found = scores(
        suppresses | gates,
        columns={
            "sufficiency": rise.added.double().numpy().mean(0),
            "necessity": -fall.added.double().numpy().mean(0),
            "ablation": least.added,
            "ablation_explained": least.explained,
            "ablation_q": least.q,
            "ablation_alone": least.alone,
            "role": np.where(gates, "gate", np.where(suppresses, "suppressor", "")).astype(object),
        },
        facts={
            **facts,
            "n_pairs": len(pairs),
            "n_pairs_asked": n_pairs,
            "gates": [_told(gate) for gate in search.bottlenecks],
            "rest": None if search.rest is None else _told(search.rest),
        },
    )
    together = carried_by(model, pairs, found.suppressors, batch_tokens=batch_tokens)
    few = together >= MIN_CARRIED and len(found.suppressors) <= most_heads(model)
    return replace(found, facts={**found.facts, "carried": together, "few": few})


def _carriers(scores: HeadScores) -> list[Head]:
    """Heads with evidence that they carry some of the difference, the best first."""
    rows = scores.table[(scores.table["score"] > 0) & (scores.table["q"] < MAX_Q)].head(MOST_CARRIERS)
    return [Head(int(layer), int(head)) for layer, head in zip(rows["layer"], rows["head"], strict=True)]


def _suppress(least: LeastSet, carrying: Collection[Head], gap: float) -> Bool[np.ndarray, "layer head"]:
    """Which heads are suppressors, by what zeroing them does alone and beside the others of the least set."""
    suppresses = (least.alone >= MIN_ALONE * gap) & (least.alone_q < MAX_Q)
    for head in least.heads:
        # What goes beyond the level of refused rollouts explains nothing, unless the head carries the difference.
        part = (least.added if head in carrying else least.explained)[head]
        suppresses[head] |= least.q[head] < MAX_Q and part >= MIN_SHARE * gap
    return suppresses


def _told(found: Bottleneck) -> dict[str, Any]:
    return {"heads": [str(head) for head in found.heads], "carried": list(found.carried)}
