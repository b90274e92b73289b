"""Variety in what is chosen: categories in turns, and no prompt that is nearly one chosen before."""

from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from interp.errors import CliffscopeError
from interp.judges.keyword import normalize

if TYPE_CHECKING:
    from datasketch import MinHash  # type: ignore[import-untyped]

T = TypeVar("T")

SHINGLE = 5
"""Characters of the pieces in which prompts are compared."""
N_PERMUTATIONS = 128


def round_robin(items: Iterable[T], category_of: Callable[[T], Hashable]) -> Iterator[T]:
    """The best of each category, then the second of each, and so on.

    Categories come in the order of their best item, and one that has run out is passed over: cut anywhere, no category
    has more than one item above another that still has some. What has no category is one category of its own.

    Args:
        items: Best first.
        category_of: Gives an item's category.
    """
    queues: dict[Hashable, deque[T]] = defaultdict(deque)
    for item in items:
        queues[category_of(item)].append(item)
    while queues:
        for category in list(queues):
            yield queues[category].popleft()
            if not queues[category]:
                del queues[category]


class NearDuplicates:
    """Tells texts that are nearly one of those before.

    Texts are compared by the Jaccard similarity of their sets of five-character pieces, in lower case and without
    punctuation. MinHash and locality-sensitive hashing (datasketch) find candidates, so that the time does not grow
    with the square of the number of texts; the similarity itself is then computed exactly.

    Args:
        threshold: Similarity from which two texts are nearly the same; 1 for the same pieces.

    Attributes:
        found: How many were found.

    Raises:
        CliffscopeError: If datasketch is not installed.
    """

    def __init__(self, threshold: float) -> None:
        try:
            from datasketch import MinHashLSH
        except ImportError as error:
            raise CliffscopeError(
                "near-duplicates are found with datasketch, which is not installed: pip install datasketch."
            ) from error
        self.threshold = threshold
        self.found = 0
        # Rather a candidate too many: each is looked at.
        self._index = MinHashLSH(threshold=min(threshold, 0.99), num_perm=N_PERMUTATIONS, weights=(0.02, 0.98))
        self._pieces: list[frozenset[str]] = []

    def is_new(self, text: str) -> bool:
        """Whether the text is unlike all new ones before; if so, later ones are compared with it."""
        pieces = pieces_of(text)
        sketch = _sketch(pieces)
        if any(similarity(pieces, self._pieces[key]) >= self.threshold for key in self._index.query(sketch)):
            self.found += 1
            return False
        self._index.insert(len(self._pieces), sketch)
        self._pieces.append(pieces)
        return True


def pieces_of(text: str) -> frozenset[str]:
    """All runs of five characters of the normalized text; the text itself if it is shorter."""
    plain = " ".join(normalize(text).replace(".", " ").replace("?", " ").replace("!", " ").split())
    return frozenset(plain[start : start + SHINGLE] for start in range(max(1, len(plain) - SHINGLE + 1)))


def similarity(a: frozenset[str], b: frozenset[str]) -> float:
    """The Jaccard similarity |a ∩ b| / |a ∪ b|."""
    return len(a & b) / len(a | b)


def _sketch(pieces: frozenset[str]) -> "MinHash":
    from datasketch import MinHash

    sketch = MinHash(num_perm=N_PERMUTATIONS)
    encoded: list[Any] = [piece.encode("utf-8") for piece in sorted(pieces)]
    sketch.update_batch(encoded)
    return sketch
