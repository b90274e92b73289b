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
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.exchange import Exchange
from interp.models.capture import BATCH_TOKENS
from interp.transcripts import Transcript

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel


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
