"""Pairs of a refused and a complied rollout, aligned at named positions, between which values are interchanged.

A value put in the wrong place says nothing, so a pair that does not align raises: it is neither cut nor shifted to fit.
(The published code of arXiv 2604.04385 swaps columns counted from the left, so that texts of unequal length misalign.)
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from interp.errors import CliffscopeError
from interp.transcripts import Transcript
from interp.transcripts.positions import EDGE

N_PAIRS = 120
"""Pairs unless told otherwise: as many as arXiv 2604.04385 uses."""
MIN_PAIRS = 8
"""Fewer say nothing about a head."""

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
                f"{pair}: at {position!r} the one has {refused.tokens[mine]!r} and the other "
                f"{complied.tokens[theirs]!r}; leave one of them out, or choose a position that they share."
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
) -> tuple[AlignedPair, ...]:
    """`n` different pairs in which each rollout takes part as often as any other of its side, give or take one.

    Where fewer pairs exist, all of them. The choice depends on the seed and the rollouts' ids, not on their order.

    Raises:
        CliffscopeError: If `n` is too small, fewer than `MIN_PAIRS` pairs exist, or a pair does not align.
    """
    possible = len(refused) * len(complied)
    if min(n, possible) < MIN_PAIRS:
        raise CliffscopeError(
            f"pairs: {n} wanted of {possible} possible ones ({len(refused)} refused × {len(complied)} complied "
            f"rollouts); at least {MIN_PAIRS} are needed: generate more harmful rollouts."
        )
    ours, theirs = _shuffled(refused, seed), _shuffled(complied, seed)
    # Walking along both sides at once meets every pair of a diagonal before it repeats; then one side moves on by one.
    period = math.lcm(len(ours), len(theirs))
    return tuple(
        align(ours[number % len(ours)], theirs[(number + number // period) % len(theirs)], positions)
        for number in range(min(n, possible))
    )


def pair_clusters(pairs: Sequence[AlignedPair]) -> tuple[str, ...]:
    """Which pairs belong together: the id of the rollout of the scarcer side.

    Pairs that share a rollout are not independent, and a test that took them so would be too sure. Resampling by the
    scarcer side counts as many independent observations as that side has rollouts.
    """
    refused = [pair.refused.id for pair in pairs]
    complied = [pair.complied.id for pair in pairs]
    return tuple(refused if len(set(refused)) < len(set(complied)) else complied)


def _shuffled(transcripts: Sequence[Transcript], seed: int) -> list[Transcript]:
    """In an order of the seed's and the ids' own."""
    return sorted(transcripts, key=lambda transcript: hashlib.sha256(f"{seed}\x00{transcript.id}".encode()).digest())
