"""Pairs of a refused and a complied rollout, aligned at named positions, between which values are interchanged.

A value put in the wrong place says nothing, so a pair that does not align raises: it is neither cut nor shifted to fit.
(The published code of arXiv 2604.04385 swaps columns counted from the left, so that texts of unequal length misalign.)
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float

from interp.errors import CliffscopeError
from interp.transcripts import Transcript
from interp.transcripts.positions import EDGE

N_PAIRS = 120
"""Pairs unless told otherwise: as many as arXiv 2604.04385 uses."""
MIN_ROLLOUTS = 8
"""Fewer of either side (and fewer pairs) do not tell how much rollouts differ."""

FIXED = ("close", "template")
"""Segments that come from the chat format, not from the model: their tokens must be the same in both rollouts."""


@dataclass(frozen=True)
class AlignedPair:
    """Two rollouts and the tokens that correspond.

    Attributes:
        refused, complied: The rollouts.
        refused_index, complied_index: The token of each position in either of them.
    """

    refused: Transcript
    complied: Transcript
    refused_index: tuple[int, ...]
    complied_index: tuple[int, ...]


def align(refused: Transcript, complied: Transcript, positions: Sequence[str | int] = (EDGE,)) -> AlignedPair:
    """The tokens at which two rollouts correspond.

    Args:
        refused: The one rollout.
        complied: The other; their lengths may differ.
        positions: Names or token indices as in `Transcript.position`.

    Raises:
        CliffscopeError: If no position is given, either rollout lacks one, two are the same token, they lie in
            different segments or at different distances within one, or the chat format wrote different tokens there;
            with both ids and the reason.
    """
    pair = f"rollouts {refused.id!r} and {complied.id!r} do not align"
    if not positions:
        raise CliffscopeError(f"{pair}: no position is given; the edge is {EDGE}.")
    try:
        places = [
            (refused.position(position), complied.position(position), position) for position in dict.fromkeys(positions)
        ]
    except CliffscopeError as error:
        raise CliffscopeError(f"{pair}: {error}") from error
    for mine, theirs, position in places:
        if refused.labels[mine] != complied.labels[theirs]:
            raise CliffscopeError(
                f"{pair}: {position!r} lies in the {refused.labels[mine]} of the one and the {complied.labels[theirs]} "
                "of the other; choose positions of one segment, such as close:-1."
            )
        if refused.labels[mine] in FIXED and refused.input_ids[mine] != complied.input_ids[theirs]:
            raise CliffscopeError(
                f"{pair}: at {position!r} the one has {refused.tokens[mine]!r} (id {refused.input_ids[mine]}) and the "
                f"other {complied.tokens[theirs]!r} (id {complied.input_ids[theirs]}); leave one of them out, or "
                "choose a position that they share."
            )
    places.sort(key=lambda place: place[0])
    for (mine, theirs, position), (next_mine, next_theirs, following) in pairwise(places):
        distances = next_mine - mine, next_theirs - theirs
        if 0 in distances:
            raise CliffscopeError(f"{pair}: {position!r} and {following!r} are the same token; name it once.")
        same_segment = refused.labels[mine] == refused.labels[next_mine]
        if distances[1] < 0 or (same_segment and distances[0] != distances[1]):
            raise CliffscopeError(
                f"{pair}: from {position!r} to {following!r} it is {distances[0]} tokens in the one and {distances[1]} "
                "in the other; choose positions counted from the same end of a segment."
            )
    return AlignedPair(
        refused, complied, tuple(mine for mine, _, _ in places), tuple(theirs for _, theirs, _ in places)
    )


def choose_pairs(
    refused: Sequence[Transcript],
    complied: Sequence[Transcript],
    *,
    n: int = N_PAIRS,
    positions: Sequence[str | int] = (EDGE,),
    seed: int = 0,
    sides: tuple[str, str] = ("refused", "complied"),
) -> tuple[AlignedPair, ...]:
    """`n` different pairs in which each rollout takes part as often as any other of its side, give or take one.

    Where fewer pairs exist, all of them. The choice depends on the seed and the rollouts' ids, not on their order.
    `sides` says what an error calls the two.

    Raises:
        CliffscopeError: If `n` or the number of rollouts of a side is below `MIN_ROLLOUTS`, or a pair does not align.
    """
    if min(n, len(refused), len(complied)) < MIN_ROLLOUTS:
        raise CliffscopeError(
            f"pairs: {n} asked for, of {len(refused)} {sides[0]} and {len(complied)} {sides[1]} rollouts; at least "
            f"{MIN_ROLLOUTS} of each are needed: generate rollouts to more prompts."
        )
    possible = len(refused) * len(complied)
    ours, theirs = _shuffled(refused, seed), _shuffled(complied, seed)
    # Walking along both sides at once meets every pair of a diagonal before it repeats; then one side moves on by one.
    period = math.lcm(len(ours), len(theirs))
    return tuple(
        align(ours[number % len(ours)], theirs[(number + number // period) % len(theirs)], positions)
        for number in range(min(n, possible))
    )


def by_rollout(
    values: Float[np.ndarray, "pair *rest"], pairs: Sequence[AlignedPair]
) -> tuple[tuple[str, ...], Float[np.ndarray, "rollout *rest"]]:
    """One value a rollout instead of one a pair, with the same mean and the spread that this mean really has.

    Pairs that share a rollout are not independent, and a test that took them so would be far too sure; nor does it help
    to group them by the rollouts of one side, since those share partners. The mean over pairs is a U-statistic of two
    samples, and varies as its projection on single rollouts does (Hoeffding 1948; the same that gives an AUROC its
    interval in DeLong et al. 1988): a rollout's value is the mean plus what its own pairs add to it. With few of all
    possible pairs the spread comes out somewhat too large, never too small.

    Args:
        values: One entry a pair.
        pairs: The pairs, of at least two rollouts of each side.

    Returns:
        The ids of the refused, then of the complied rollouts that take part, and the value of each.
    """
    mean = values.mean(0)
    names: list[str] = []
    parts = []
    for side in ([pair.refused.id for pair in pairs], [pair.complied.id for pair in pairs]):
        place = {name: number for number, name in enumerate(dict.fromkeys(side))}
        added = np.zeros((len(place), *values.shape[1:]))
        np.add.at(added, [place[name] for name in side], values - mean)
        # A sample's spread about its own mean is too small by this.
        parts.append(added * math.sqrt(len(place) / (len(place) - 1)))
        names += place
    return tuple(names), mean + np.concatenate(parts) * len(names) / len(pairs)


def _shuffled(transcripts: Sequence[Transcript], seed: int) -> list[Transcript]:
    """In an order of the seed's and the ids' own."""
    return sorted(transcripts, key=lambda transcript: hashlib.sha256(f"{seed}\x00{transcript.id}".encode()).digest())
