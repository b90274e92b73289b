"""Pairs of rollouts: what aligns and what raises, and how evenly rollouts are used."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interp.errors import CliffscopeError
from interp.significance import sign_flip_p
from interp.transcripts import Transcript
from interventions.pairs import MIN_ROLLOUTS, AlignedPair, align, by_rollout, choose_pairs

CLOSE = (90, 91, 92)


def transcript(id: str, thinking: int, close: tuple[int, ...] = CLOSE) -> Transcript:
    """Four prompt tokens, `thinking` tokens and the closing tag."""
    labels = ("template", "instruction", "instruction", "template", *["thinking"] * thinking, *["close"] * len(close))
    ids = (1, 10, 11, 2, *range(20, 20 + thinking), *close)
    return Transcript(id, ids, tuple(f"<{i}>" for i in ids), labels, 4, "closed")


def side(name: str, n: int) -> list[Transcript]:
    return [transcript(f"{name}{i}", thinking=3 + i % 4) for i in range(n)]


def test_texts_of_different_length_align_at_the_close_tokens() -> None:
    pair = align(transcript("r", 3), transcript("c", 8), ["close:-1", "close:-3"])
    assert pair == AlignedPair(transcript("r", 3), transcript("c", 8), (7, 9), (12, 14))


@pytest.mark.parametrize(
    ("positions", "complied", "reason"),
    [
        ([], transcript("c", 3), "no position is given"),
        (["response:0"], transcript("c", 3), "no position 'response:0'"),
        (["close:-3"], transcript("c", 3, close=(91, 92)), "its close has 2 tokens"),
        (["close:-1"], transcript("c", 3, close=(90, 91, 93)), "has '<92>' (id 92) and the other '<93>' (id 93)"),
        ([7], transcript("c", 5), "close of the one and the thinking of the other"),
        (["think:0", "think:1"], transcript("c", 6), "2 tokens in the one and 5 in the other"),
        (["close:-1", "close:2"], transcript("c", 3), "are the same token"),
    ],
)
def test_misaligned_pairs_raise_with_both_ids(positions: list[str | int], complied: Transcript, reason: str) -> None:
    with pytest.raises(CliffscopeError, match="rollouts 'r' and 'c' do not align") as raised:
        align(transcript("r", 3), complied, positions)
    assert reason in str(raised.value)


def test_the_prompts_template_must_agree_too() -> None:
    other = transcript("c", 3)
    other = Transcript("c", (1, 10, 11, 3, *other.input_ids[4:]), other.tokens, other.labels, 4, "closed")
    assert align(transcript("r", 3), other, ["inst"]).complied_index == (2,)
    with pytest.raises(CliffscopeError, match="at 'post_inst'"):
        align(transcript("r", 3), other, ["inst", "post_inst"])


@given(st.integers(6, 15), st.integers(6, 15), st.integers(6, 250), st.integers(0, 3))
def test_pairs_are_different_and_use_rollouts_evenly(n_refused: int, n_complied: int, n: int, seed: int) -> None:
    refused, complied = side("r", n_refused), side("c", n_complied)
    if min(n_refused, n_complied, n) < MIN_ROLLOUTS:
        with pytest.raises(CliffscopeError, match=f"of {n_refused} refused and {n_complied} complied"):
            choose_pairs(refused, complied, n=n, seed=seed)
        return
    pairs = choose_pairs(refused, complied, n=n, seed=seed)
    names = [(pair.refused.id, pair.complied.id) for pair in pairs]
    assert len(set(names)) == len(names) == min(n, n_refused * n_complied)
    for used, size in zip(zip(*names, strict=True), (n_refused, n_complied), strict=True):
        counts = Counter(used)
        assert max(counts.values()) - (min(counts.values()) if len(counts) == size else 0) <= 1
    assert pairs == choose_pairs(refused[::-1], complied[::-1], n=n, seed=seed)


@given(st.integers(8, 12), st.integers(8, 12), st.integers(8, 150))
def test_values_by_rollout_keep_the_mean(n_refused: int, n_complied: int, n: int) -> None:
    pairs = choose_pairs(side("r", n_refused), side("c", n_complied), n=n)
    values = np.random.default_rng(n).normal(size=(len(pairs), 2, 3))
    names, found = by_rollout(values, pairs)
    assert len(set(names)) == len(found)
    np.testing.assert_allclose(found.mean(0), values.mean(0), atol=1e-12)


def test_values_by_rollout_of_all_pairs_have_the_spread_of_two_samples() -> None:
    """Where a pair's value is what one rollout has more than the other, the mean is a difference of two means."""
    refused, complied = side("r", 9), side("c", 12)
    pairs = choose_pairs(refused, complied, n=9 * 12)
    rng = np.random.default_rng(0)
    has = {transcript.id: rng.normal() for transcript in refused + complied}
    _, found = by_rollout(np.array([has[pair.refused.id] - has[pair.complied.id] for pair in pairs]), pairs)
    variance = sum(np.var([has[t.id] for t in each], ddof=1) / len(each) for each in (refused, complied))
    assert np.var(found) / len(found) == pytest.approx(variance)


def test_sharing_rollouts_does_not_make_a_test_too_sure() -> None:
    """No difference between the sides: of 1000 tests some 5 % may have p < 0.05; by pairs it would be a third."""
    pairs = choose_pairs(side("r", 22), side("c", 38), n=120)
    rng = np.random.default_rng(1)
    refused, complied = ({f"{name}{i}": rng.normal(size=1000) for i in range(38)} for name in "rc")
    values = np.stack([refused[pair.refused.id] - complied[pair.complied.id] for pair in pairs])
    assert (sign_flip_p(by_rollout(values, pairs)[1], flips=499) < 0.05).mean() < 0.06
    assert (sign_flip_p(values, flips=499) < 0.05).mean() > 0.2


def test_the_seed_chooses() -> None:
    refused, complied = side("r", 20), side("c", 20)
    first, second = (choose_pairs(refused, complied, n=20, seed=seed) for seed in (0, 1))
    assert set(map(repr, first)) != set(map(repr, second))


def test_one_rollout_that_does_not_align_raises() -> None:
    odd = transcript("odd", 3, close=(90, 91, 93))
    with pytest.raises(CliffscopeError, match="odd"):
        choose_pairs(side("r", 8), [*side("c", 7), odd], n=64)
