"""Parts of the thinking: the same tokens in whole texts and while generating, however batched, padded and cached."""

from collections.abc import Sequence
from functools import cache
from itertools import chain, pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from interp import Ledger, Rollout, Transcript
from interp.errors import CliffscopeError
from interp.models.segment_table import TextSegments, WritingSegments
from interp.models.token_context import TokenContext
from interp.organisms.prompt_set import heldout_prompts
from interp.rollouts.model_generator import ModelGenerator
from interventions.directions.direction import Direction
from interventions.head_ablation import ScaleHeads
from interventions.scope import Scope
from interventions.steering.along_direction import AddDirection
from tests.circuits.material import organism

FRACTIONS = st.integers(0, 20).map(lambda twentieths: twentieths / 20)
WINDOWS = st.tuples(FRACTIONS, FRACTIONS).filter(lambda window: window[0] < window[1])


def text_of(thinking: int, response: int = 2, number: int = 0) -> Transcript:
    labels = ("instruction", "template", *("thinking",) * thinking, "close", *("response",) * response)
    return Transcript(
        f"t{number}", (7,) * len(labels), ("x",) * len(labels), labels, 2, "closed" if thinking else "empty"
    )


def columns(texts: Sequence[Transcript], left: bool) -> Tensor:
    """`[batch, pos]`: the token indices of a padded batch."""
    width = max(map(len, texts))
    rows = []
    for text in texts:
        padding = [-1] * (width - len(text))
        rows.append([*padding, *range(len(text))] if left else [*range(len(text)), *padding])
    return torch.tensor(rows)


def touched(scope: Scope, tokens: TokenContext) -> list[list[int]]:
    """The token indices of each row that are in the scope."""
    return [index[here].tolist() for index, here in zip(tokens.index, scope.mask(tokens), strict=True)]


def test_the_last_fifth_of_ten_tokens_is_two() -> None:
    text = text_of(10)
    tokens = TokenContext(columns([text], False), [text], TextSegments([text]))
    assert touched(Scope("thinking", (0.8, 1.0)), tokens) == [[10, 11]]
    assert touched(Scope("thinking:0-0.25"), tokens) == [[2, 3]]
    assert touched(Scope("thinking:0.25-.5"), tokens) == [[4, 5, 6]]
    assert touched(Scope("thinking:0.29-0.3", thinking_tokens=100), tokens) == [[]]
    # Counted from the start of an expected 5 tokens; what comes after them is still the last part.
    assert touched(Scope("thinking:0.8-1@5"), tokens) == [[6, 7, 8, 9, 10, 11]]
    assert touched(Scope("thinking:0.4-0.8@5"), tokens) == [[4, 5]]
    assert touched(Scope("thinking:0.8-1@50"), tokens) == [[]]


def test_rounding_of_fractions_loses_no_token() -> None:
    text = text_of(100)
    tokens = TokenContext(columns([text], False), [text], TextSegments([text]))
    assert touched(Scope("thinking:0.29-0.58"), tokens) == [list(range(31, 60))]  # 0.29 · 100 is below 29 in floats


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 30), min_size=1, max_size=4),
    cuts=st.sets(FRACTIONS.filter(lambda cut: 0 < cut < 1), max_size=4),
    expected=st.none() | st.integers(1, 40),
    left=st.booleans(),
    one_by_one=st.booleans(),
)
def test_adjoining_windows_divide_the_thinking(
    lengths: list[int], cuts: set[float], expected: int | None, left: bool, one_by_one: bool
) -> None:
    texts = [text_of(length, number % 3, number) for number, length in enumerate(lengths)]
    index, bounds = columns(texts, left), [0.0, *sorted(cuts), 1.0]
    steps = index.split(1, dim=1) if one_by_one else [index]
    found: list[list[list[int]]] = []
    for start, stop in pairwise(bounds):
        scope = Scope("thinking", (start, stop), expected)
        parts = [touched(scope, TokenContext(step, texts, TextSegments(texts))) for step in steps]
        found.append([sorted(chain.from_iterable(rows)) for rows in zip(*parts, strict=True)])
    for row, text in enumerate(texts):
        assert list(chain.from_iterable(part[row] for part in found)) == list(text.indices("thinking"))
        if expected is None:
            n = len(text.indices("thinking"))
            for (start, stop), part in zip(pairwise(bounds), found, strict=True):
                assert abs(len(part[row]) - (stop - start) * n) < 1 + 1e-9


@cache
def written() -> tuple[tuple[Transcript, tuple[int, ...]], ...]:
    """Prompts of the organism, with what it wrote after each."""
    prompts = heldout_prompts(3, 2).prompts
    starts = organism("cliff").transcripts().prompts([p.text for p in prompts], [p.id for p in prompts])
    return tuple(zip(starts, map(tuple, organism("cliff").generate(starts, max_new_tokens=300)), strict=True))


@cache
def whole(number: int) -> Transcript:
    """The transcript of what was written after one prompt."""
    prompt, ids = written()[number]
    text = organism("cliff").chat.split(organism("cliff").chat.decode(list(ids)))
    named = next(p.text for p in heldout_prompts(3, 2).prompts if p.id == prompt.id)
    found = organism("cliff").transcripts().build(Rollout(prompt.id, named, *text))
    assert found.input_ids[: len(prompt) + len(ids)] == (*prompt.input_ids, *ids)
    return found


@settings(max_examples=20, deadline=None)
@given(
    chosen=st.lists(st.integers(0, 4), min_size=1, max_size=4, unique=True),
    padding=st.integers(0, 3),
    chunks=st.lists(st.integers(1, 40), max_size=6),
    cached=st.booleans(),
    window=WINDOWS,
    expected=st.integers(1, 120),
)
def test_while_it_is_written_the_same_tokens_as_in_the_finished_text(
    chosen: list[int], padding: int, chunks: list[int], cached: bool, window: tuple[float, float], expected: int
) -> None:
    """Passes of any number of columns after a left-padded prompt, with a cache or as the whole text again and again."""
    rows = [written()[number] for number in chosen]
    model, scope = organism("cliff"), Scope("thinking", window, expected)
    width = max(len(prompt) for prompt, _ in rows) + padding
    ids = [[3] * (width - len(prompt)) + [*prompt.input_ids, *new] for prompt, new in rows]
    length = max(map(len, ids))
    stop = 0  # what follows the end of a row
    shown = torch.tensor([[*row, *[stop] * (length - len(row))] for row in ids])
    starts = torch.tensor([width - len(prompt) for prompt, _ in rows])[:, None]
    index = (torch.arange(length)[None] - starts).clamp(min=-1)
    table = WritingSegments([prompt for prompt, _ in rows], lambda: model.chat, [stop])
    found: list[set[int]] = [set() for _ in rows]
    bounds = [0, *[min(length, width + sum(chunks[:n])) for n in range(len(chunks) + 1)], length]
    for begin, end in pairwise(bounds):
        first = begin if cached else 0
        if first == end:
            continue
        seen = table.note(index[:, first:end], shown[:, first:end])
        for row, indices in enumerate(touched(scope, TokenContext(seen, [prompt for prompt, _ in rows], table))):
            found[row] |= set(indices)
    for row, number in enumerate(chosen):
        text = whole(number)
        tokens = TokenContext(torch.arange(len(text))[None], [text], TextSegments([text]))
        tag = next(n for n in range(len(text)) if "</think>" in "".join(text.tokens[: n + 1]))
        # The line break before the tag is the thinking's until the tag comes.
        late = range(text.segments["thinking"][1], tag)
        assert found[row] - set(late) == set(touched(scope, tokens)[0])


def test_generated_and_replayed_texts_are_changed_at_the_same_tokens() -> None:
    """By the ledger: with and without the KV cache, alone and together, and when the finished text is read again."""
    model = organism("cliff")
    drawn = torch.randn(model.d_model, generator=torch.Generator().manual_seed(0))
    direction = Direction.of(drawn, site="blocks.2.hook_resid_post", scale=1e-3)  # too little to change a token
    change = AddDirection(direction, 1.0, scope="thinking", window=(0.5, 0.75), thinking_tokens=12)
    prompts = [prompt for prompt, _ in written()]

    def generate(**options: object) -> Ledger:
        ledger = Ledger()
        with model.intervene(change, ledger=ledger):
            assert model.generate(prompts, max_new_tokens=14, **options) == [list(ids[:14]) for _, ids in written()]
        return ledger

    ledgers = [generate(), generate(batch_tokens=1), generate(use_cache=False)]
    replayed = Ledger()
    with model.intervene(change, ledger=replayed):
        model.capture([whole(number) for number in range(5)], ["blocks.3.hook_resid_post"], [-1])
    for number, prompt in enumerate(prompts):
        start = whole(number).segments["thinking"][0]
        for ledger in (*ledgers, replayed):
            assert ledger.positions(prompt.id) == list(range(start + 6, start + 9))


def test_the_length_must_be_known_before_it_is_written() -> None:
    model = organism("cliff")
    direction = Direction.of(torch.ones(model.d_model), site="blocks.2.hook_resid_post")
    message = r"its part 0\.8 to 1 is not known while .* \(thinking_tokens=300, or thinking:0\.8-1@300"
    with pytest.raises(CliffscopeError, match=message):
        with model.intervene(AddDirection(direction, 1.0, scope="thinking", window=(0.8, 1.0))):
            model.generate([written()[0][0]], max_new_tokens=5)
    with pytest.raises(CliffscopeError, match="does not say whose tokens it carries"):
        with model.intervene(AddDirection(direction, 1.0, scope="thinking:0.8-1@10")):
            model.hf(torch.tensor([[5, 6]]))


def test_head_ablation_takes_parts_of_the_thinking_too() -> None:
    model, ledger = organism("cliff"), Ledger()
    rollout = ModelGenerator(model, 300).generate(heldout_prompts(1, 0).prompts)[0]
    transcript = model.transcripts().build(rollout)
    with model.intervene(ScaleHeads([(2, 1)], "thinking:0.5-1"), ledger=ledger):
        model.capture([transcript], ["blocks.2.hook_resid_post"], [-1])
    start, stop = transcript.segments["thinking"]
    assert ledger.positions(transcript.id) == list(range(start + (stop - start) // 2, stop))


@pytest.mark.parametrize("word", ["all", "edge", "thinking", "thinking:0-0.5", "thinking:0.125-1@30", "thinking:0-1@7"])
def test_a_scope_is_the_word_that_it_is_written_as(word: str) -> None:
    assert str(Scope(word)) == word and Scope(str(Scope(word))) == Scope(word)


def test_the_parts_of_a_word_are_its_attributes() -> None:
    assert Scope("thinking:.8-1@300") == Scope("thinking", (0.8, 1.0), 300)
    assert Scope("thinking:0.8-1") == Scope("thinking", (0.8, 1.0))


def test_windows_that_are_none() -> None:
    for window in ((0.5, 0.5), (0.8, 0.2), (-0.1, 0.5), (0.0, 1.2), (float("nan"), 1.0)):
        with pytest.raises(CliffscopeError, match="expected a window"):
            Scope("thinking", window)
    for scope in ("response:0.5-1", "edge:0-0.5"):
        with pytest.raises(CliffscopeError, match="only the thinking has a window"):
            Scope(scope)
    with pytest.raises(CliffscopeError, match="only the thinking has a window and an expected length"):
        Scope("all", thinking_tokens=10)
    with pytest.raises(CliffscopeError, match="at least 1 token, found 0"):
        Scope("thinking:0.5-1@0")
    with pytest.raises(CliffscopeError, match="give the window and the expected length once"):
        Scope("thinking:0.5-1", (0.8, 1.0))
    for word in ("thinking:", "thinking:0.5", "thinking:1-2-3", "thinking:a-b", "thinking:0.5-1@", "thinking: 0-1"):
        with pytest.raises(CliffscopeError, match=r"or a part of the thinking such as thinking:0.8-1"):
            Scope(word)
