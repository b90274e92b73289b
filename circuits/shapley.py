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
order of one pair costs as many passes over one token as there are heads.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.bottlenecks import Bottleneck, find_bottlenecks
from circuits.cases import Cases, to_explain
from circuits.exchange import Exchange
from circuits.head_scores import MAX_Q, HeadScores
from circuits.interchange import prompts_by_id
from interp.models.capture import BATCH_TOKENS
from interp.transcripts import Transcript
from interp.transcripts.positions import EDGE
from interventions.heads import parse_heads
from interventions.pairs import N_PAIRS, by_rollout, choose_pairs
from probes.linear import LinearProbe

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel


N_JOINT = 32
"""Pairs on which sets of heads are exchanged in the search for bottlenecks."""
MOST_CANDIDATES = 12
"""Heads with evidence among which bottlenecks are searched, best first."""


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
    n = model.n_layers * model.n_heads
    generator = torch.Generator().manual_seed(seed)
    turn = torch.stack([torch.randperm(n, generator=generator) for _ in recipients])
    exchange = Exchange(model, recipients, donors, batch_tokens=batch_tokens)
    ways = [_along(exchange, order, advance) for order in (turn, n - 1 - turn)]
    added = (ways[0][1] + ways[1][1]) / 2
    return Turns(ways[0][0][0], ways[0][0][-1], added.unflatten(-1, (model.n_layers, model.n_heads)))


def _along(
    exchange: Exchange, turn: Int[Tensor, "rollout place"], advance: Callable[[int], object]
) -> tuple[Float[Tensor, "set rollout"], Float[Tensor, "rollout place"]]:
    """The logits as heads join at their turns, and what each head adds at its own."""
    n = turn.shape[1]
    grid = (exchange.model.n_layers, exchange.model.n_heads)

    def exchanged(rows: Sequence[int], number: int) -> Bool[Tensor, "row layer head"]:
        return (turn[list(rows)] < number).unflatten(-1, grid)

    logits = exchange.logits(n + 1, exchanged, advance)
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
    """Heads by their Shapley value between refused and complied rollouts, named where they form a bottleneck.

    A head is confirmed if it belongs to a bottleneck: a few heads that carry the difference together (see
    `circuits.bottlenecks`). Where no few heads do, every head with evidence is named, and the facts say so. Intervals
    and p are over rollouts and by prompt, as in `circuits.interchange.screen`. Columns of the table's own:
    `sufficiency` and `necessity`, the values of either direction; `bottleneck`, which one the head belongs to, from 1,
    0 for none. Facts: `bottlenecks`, each with `heads` and `carried`; `rest`, the set of heads with which the search
    ended; `few`, whether few heads carry the difference.

    Args:
        model: The model.
        probe: Not read; that a method takes the same arguments as any other.
        cases: The rollouts.
        n_pairs: Different pairs; all there are if there are fewer.
        seed: Of the choice of pairs, orders, bootstrap and permutation.
        batch_tokens: Token budget of a pass.
        advance: Told how many pairs more are done in one of the two directions.

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
    values = ((rise.added - fall.added) / 2).double().numpy()
    prompt = prompts_by_id(cases)
    names, of_rollouts = by_rollout(values, pairs)

    def scores(confirmed: Bool[np.ndarray, "layer head"] | None, **more: Any) -> HeadScores:
        gap = to_explain(rise.before, fall.before)
        clusters = [prompt[name] for name in names]
        return HeadScores.of(
            "shapley", model, of_rollouts, to_explain=gap, clusters=clusters, confirmed=confirmed, seed=seed, **more
        )

    first = scores(None)
    candidates = first.table[(first.table["score"] > 0) & (first.table["q"] < MAX_Q)]["name"]
    heads = parse_heads(",".join(candidates[:MOST_CANDIDATES])) if len(candidates) else ()
    search = find_bottlenecks(model, pairs[:N_JOINT], heads, batch_tokens=batch_tokens)
    of = np.zeros((model.n_layers, model.n_heads), dtype=np.int64)
    for number, found in enumerate(search.bottlenecks, start=1):
        for head in found.heads:
            of[head] = number
    return scores(
        of > 0 if search.bottlenecks else None,
        columns={
            "sufficiency": rise.added.double().numpy().mean(0),
            "necessity": -fall.added.double().numpy().mean(0),
            "bottleneck": of,
        },
        facts={
            **facts,
            "n_pairs": len(pairs),
            "n_pairs_asked": n_pairs,
            "bottlenecks": [_told(found) for found in search.bottlenecks],
            "rest": None if search.rest is None else _told(search.rest),
            "few": bool(search.bottlenecks),
        },
    )


def _told(found: Bottleneck) -> dict[str, Any]:
    return {"heads": [str(head) for head in found.heads], "carried": list(found.carried)}
