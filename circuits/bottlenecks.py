"""Bottlenecks: few heads through which all the difference between refusing and complying passes.

What makes a model comply with one prompt and refuse another must travel from the prompt to the answer. Many heads carry
a little of it: some tell the kinds of prompt apart, some hand on what others wrote. A mechanism shows as a narrow place
on the way: a small set of heads that, exchanged together between two rollouts, exchanges the answers. There may be
several such places one behind the other (a gate, then its amplifiers), each of which carries it all. Steps:

1. Among candidates (heads that each carry something to speak of), heads are joined one after another, always the one
   that adds most to what the set carries: the share of the difference that its exchange moves, the mean of both
   directions (see `circuits.shapley`). One direction alone would miss heads that stand in for each other, or heads that
   are needed together.
2. It ends where no head adds `MIN_SHARE`. If the set then carries `MIN_CARRIED` of the difference and is no larger than
   `MAX_SIZE` of all heads, it is a bottleneck.
3. Again with the remaining candidates, until there is none.

A difference that no few heads carry has no bottleneck, and no sparse mask is to be expected.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from circuits.exchange import Exchange
from circuits.head_scores import MIN_SHARE
from interp.models.capture import BATCH_TOKENS
from interventions.heads import Head, Sizes, check_heads
from interventions.pairs import AlignedPair

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel

MIN_CARRIED = 0.8
"""The least share of the difference that a bottleneck carries."""
MAX_SIZE = 0.1
"""The largest bottleneck, as a share of all heads; of small models at least two heads."""


class Bottleneck(NamedTuple):
    """A set of heads that carries the difference.

    Attributes:
        heads: In the order in which they joined.
        carried: The share of the difference that exchanging them moves, as each joined; may exceed 1.
    """

    heads: tuple[Head, ...]
    carried: tuple[float, ...]


class Search(NamedTuple):
    """What was found.

    Attributes:
        bottlenecks: The first is that of the strongest heads.
        rest: The set that was none, with which the search ended; `None` if candidates ran out.
    """

    bottlenecks: tuple[Bottleneck, ...]
    rest: Bottleneck | None


def find_bottlenecks(
    model: "HookedModel",
    pairs: Sequence[AlignedPair],
    candidates: Iterable[tuple[int, int]],
    *,
    batch_tokens: int = BATCH_TOKENS,
    advance: Callable[[int], object] = lambda sets: None,
) -> Search:
    """Bottlenecks among candidates.

    Args:
        model: The model; interventions that are active on it act.
        pairs: Refused and complied rollouts that correspond.
        candidates: The heads to choose from.
        batch_tokens: Token budget of a pass.
        advance: Told how many sets more were exchanged.

    Raises:
        CliffscopeError: If a candidate does not exist; and as `Exchange` does.
    """
    carried = _measure(model, pairs, batch_tokens, advance)
    left = list(check_heads(candidates, model)) if (candidates := list(candidates)) else []
    most = most_heads(model)
    found: list[Bottleneck] = []
    while left:
        grown = _grown(left, carried, most)
        if not grown.heads or grown.carried[-1] < MIN_CARRIED:
            return Search(tuple(found), grown)
        found.append(grown)
        left = [head for head in left if head not in grown.heads]
    return Search(tuple(found), None)


def carried_by(
    model: "HookedModel",
    pairs: Sequence[AlignedPair],
    heads: Iterable[tuple[int, int]],
    *,
    batch_tokens: int = BATCH_TOKENS,
) -> float:
    """The share of the difference that a set of heads carries. Raises `CliffscopeError` as `find_bottlenecks` does."""
    chosen = [Head(*head) for head in heads]
    return _measure(model, pairs, batch_tokens, lambda sets: None)([chosen])[0]


def most_heads(model: Sizes) -> int:
    """The largest set that is called few heads."""
    return max(2, int(MAX_SIZE * model.n_layers * model.n_heads))


def _measure(
    model: "HookedModel", pairs: Sequence[AlignedPair], batch_tokens: int, advance: Callable[[int], object]
) -> Callable[[Sequence[Sequence[Head]]], list[float]]:
    """What tells the share of the difference that each of some sets carries, the mean of both directions."""
    refused, complied = [pair.refused for pair in pairs], [pair.complied for pair in pairs]
    ways = [
        Exchange(model, recipients, donors, batch_tokens=batch_tokens)
        for recipients, donors in ((complied, refused), (refused, complied))
    ]

    def carried(sets: Sequence[Sequence[Head]]) -> list[float]:
        rise, fall = (way.of([], *sets).double() for way in ways)
        advance(len(sets))
        moved = (rise[1:] - rise[0]) - (fall[1:] - fall[0])
        gap = float((fall[0] - rise[0]).mean())
        return [float(value) / (2 * gap) for value in moved.mean(1)]

    return carried


def _grown(
    candidates: Sequence[Head], carried: Callable[[Sequence[Sequence[Head]]], list[float]], most: int
) -> Bottleneck:
    """The set that grows by the head that adds most, until none adds `MIN_SHARE` or it has `most` heads."""
    heads: list[Head] = []
    shares: list[float] = []
    left = list(candidates)
    while left and len(heads) < most:
        values = carried([[*heads, head] for head in left])
        best = max(range(len(left)), key=values.__getitem__)
        if values[best] - (shares[-1] if shares else 0.0) < MIN_SHARE:
            break
        shares.append(values[best])
        heads.append(left.pop(best))
    return Bottleneck(tuple(heads), tuple(shares))
