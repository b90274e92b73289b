"""Packed tokens are the tokens, and few bytes."""

import base64
import json
import zlib
from typing import Any

import numpy as np
import pandas as pd
import pytest

from report import tokens
from report.tokens import SEGMENTS, Packed, pack
from tests.report.material import rollouts, token_scores


def unpacked(packed: Packed, name: str, id: str) -> list[tuple[str, str, float | None]]:
    """Segment, text and score of each token, as the page's script reads them."""
    number, first, count, runs = packed.index[name][id]
    content = zlib.decompress(base64.b64decode(packed.chunks[number]))
    total = len(content) // (packed.width + 1)
    ids = np.frombuffer(content[: total * packed.width], f"<u{packed.width}")[first : first + count]
    steps = np.frombuffer(content[total * packed.width :], np.uint8)[first : first + count]
    segments = [SEGMENTS[segment] for segment, length in runs for _ in range(length)]
    scores = [None if step > tokens.STEPS else step / tokens.STEPS for step in steps]
    return list(zip(segments, (packed.vocabulary[i] for i in ids), scores, strict=True))


def check(table: pd.DataFrame, packed: Packed, name: str) -> None:
    for id, rows in table.groupby("id"):
        rows = rows.sort_values("token_index")
        found = unpacked(packed, name, str(id))
        assert [(s, t) for s, t, _ in found] == list(zip(rows["segment"], rows["token"], strict=True))
        for (_, _, score), true in zip(found, rows["score"], strict=True):
            assert score is None if np.isnan(true) else score == pytest.approx(true, abs=0.002)


def test_what_comes_out_is_what_went_in(monkeypatch: pytest.MonkeyPatch) -> None:
    base = token_scores(rollouts())
    base.loc[5, "score"] = np.nan
    other = token_scores(rollouts(5), falls=False).sample(frac=1, random_state=0)  # in no order
    monkeypatch.setattr(tokens, "CHUNK", 60)  # a few rollouts each
    packed = pack({"base": base, "masked": other}, {})
    assert len(packed.chunks) > 5
    check(base, packed, "base")
    check(other, packed, "masked")


def test_a_large_vocabulary_takes_four_bytes() -> None:
    count = (1 << 16) + 10
    table = pd.DataFrame({"id": "r", "token_index": range(count), "segment": "thinking", "score": 0.5})
    table["token"] = [f"t{n}" for n in range(count)]
    packed = pack({"base": table}, {})
    assert packed.width == 4 and [text for _, text, _ in unpacked(packed, "base", "r")][-1] == f"t{count - 1}"


def test_texts_stand_in_where_there_are_no_tokens() -> None:
    made = {r.id: r for r in rollouts(4)}
    packed = pack({"base": token_scores(rollouts(3))}, {"base": made, "masked": made})
    texts = [json.loads(zlib.decompress(base64.b64decode(packed.chunks[packed.texts[n]]))) for n in ("base", "masked")]
    assert list(texts[0]) == ["r3"] and list(texts[1]) == list(made)
    assert texts[0]["r3"] == [made["r3"].prompt, made["r3"].thinking, made["r3"].response]


def test_no_scores_at_all() -> None:
    packed: Any = pack({}, {})
    assert packed.chunks == [] and packed.vocabulary == []
