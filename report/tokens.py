"""Tokens and their scores, packed: a page with a million of them must stay small and open at once.

Spelt out as JSON a token costs some 25 bytes, so that 1,000 rollouts of 1,000 tokens would be 25 MB for one set of
answers, all of which a browser would have to parse before it shows anything. Here a token is the number of its text in
one vocabulary and a score of one byte. Some 64,000 tokens together are a chunk, deflated and written in base64: the
browser touches no chunk before a rollout in it is opened, and inflates it by itself (`DecompressionStream`).
"""

import base64
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from interp.rollouts import Rollout
from report.text import shown

STEPS = 254
"""A score s is stored as round(s · STEPS), which is exact to 0.002; NaN as STEPS + 1."""
CHUNK = 64_000
"""Tokens in a chunk, or as many as one rollout has; about a fortieth of a second to inflate."""
SEGMENTS = ("system", "instruction", "template", "thinking", "close", "response")


@dataclass
class Packed:
    """Packed tokens.

    Attributes:
        vocabulary: The texts.
        chunks: Base64 of deflated bytes: the numbers of all tokens (little-endian, `width` bytes each), then as many
            scores, or for texts UTF-8 JSON.
        width: Bytes of a token's number: 2, or 4 where the vocabulary is large.
        index: For each set of answers and each rollout `[chunk, first token in the chunk, tokens, runs]`; the runs are
            `[segment, tokens]` in their order.
        texts: For each set of answers the chunk of the texts of rollouts that have no tokens.
    """

    vocabulary: list[str] = field(default_factory=list)
    chunks: list[str] = field(default_factory=list)
    width: int = 2
    index: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    texts: dict[str, int] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """All but the chunks."""
        return {
            "vocabulary": self.vocabulary,
            "width": self.width,
            "steps": STEPS,
            "segments": SEGMENTS,
            "index": self.index,
            "texts": self.texts,
        }


def pack(scores: Mapping[str, pd.DataFrame], answers: Mapping[str, Mapping[str, Rollout]]) -> Packed:
    """Packs the token scores of each set of answers, and the texts of those that have none."""
    packed = Packed()
    numbers, texts = _numbered(scores)
    packed.vocabulary = [shown(text) for text in texts]
    packed.width = 2 if len(texts) <= 1 << 16 else 4
    for name, rows in scores.items():
        packed.index[name] = _pack(rows, numbers[name], packed)
    for name, rollouts in answers.items():
        told = packed.index.get(name, {})
        left = {id: [r.prompt, r.thinking, r.response] for id, r in rollouts.items() if id not in told}
        if left:
            packed.texts[name] = len(packed.chunks)
            packed.chunks.append(deflated(_json(left)))
    return packed


def _numbered(scores: Mapping[str, pd.DataFrame]) -> tuple[dict[str, np.ndarray], list[str]]:
    """The number of every token's text, and the texts."""
    if not scores:
        return {}, []
    codes, texts = pd.factorize(pd.concat([rows["token"].astype(object) for rows in scores.values()]))
    sizes = np.cumsum([len(rows) for rows in scores.values()])[:-1]
    parts = np.split(codes, sizes)
    return dict(zip(scores, parts, strict=True)), [str(text) for text in texts]


def _pack(rows: pd.DataFrame, numbers: np.ndarray, packed: Packed) -> dict[str, list[Any]]:
    """Adds the chunks of one table; the index of its rollouts."""
    rank = {name: place for place, name in enumerate(SEGMENTS)}
    segments = rows["segment"].map(rank).fillna(SEGMENTS.index("template")).to_numpy(np.int8)
    values = rows["score"].to_numpy(np.float64)
    steps = np.where(np.isfinite(values), np.round(np.clip(values, 0, 1) * STEPS), STEPS + 1).astype(np.uint8)
    index: dict[str, list[Any]] = {}
    waiting: list[np.ndarray] = []
    held = 0
    for id, places in spans(rows).items():
        if held and held + len(places) > CHUNK:
            _add(packed, waiting, numbers, steps)
            waiting, held = [], 0
        index[id] = [len(packed.chunks), held, len(places), _runs(segments[places])]
        waiting.append(places)
        held += len(places)
    if held:
        _add(packed, waiting, numbers, steps)
    return index


def spans(rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """For each rollout the places of its tokens in the table, in the order of the tokens."""
    codes, ids = pd.factorize(rows["id"].astype(object))
    order = np.lexsort((rows["token_index"].to_numpy(), codes))
    starts = np.searchsorted(codes[order], np.arange(len(ids)))
    return dict(zip(map(str, ids), np.split(order, starts[1:]), strict=True)) if len(ids) else {}


def _add(packed: Packed, waiting: Sequence[np.ndarray], numbers: np.ndarray, steps: np.ndarray) -> None:
    places = np.concatenate(waiting)
    packed.chunks.append(deflated(numbers[places].astype(f"<u{packed.width}").tobytes() + steps[places].tobytes()))


def _runs(segments: np.ndarray) -> list[list[int]]:
    """`[segment, tokens]` of each stretch of equal segments."""
    starts = np.flatnonzero(np.diff(segments, prepend=-1))
    lengths = np.diff(starts, append=len(segments))
    return [[int(segments[start]), int(length)] for start, length in zip(starts, lengths, strict=True)]


def _json(value: Any) -> bytes:
    import json

    from report.text import clean

    return json.dumps(clean(value), ensure_ascii=False, separators=(",", ":")).encode()


def deflated(content: bytes) -> str:
    """Bytes for a chunk: as the browser's `DecompressionStream("deflate")` reads them, in base64."""
    return base64.b64encode(zlib.compress(content, 9)).decode()
