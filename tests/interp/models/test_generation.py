"""Sampling: noise that follows the prompt, the right distribution, limits and errors."""

import pytest
import torch

from interp.errors import CliffscopeError
from interp.models.generation import _InverseTransform, end_tokens
from interp.models.hooked_model import HookedModel
from interp.transcripts import Transcript
from tests.architectures import random_model


@pytest.fixture(scope="module")
def model() -> HookedModel:
    return HookedModel(random_model("qwen2"))


def prompts(count: int, length: int = 6) -> list[Transcript]:
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(3, 96, (count, length), generator=generator).tolist()
    return [Transcript.from_ids(f"p{number}", row) for number, row in enumerate(ids)]


def test_a_sample_depends_on_seed_and_prompt_alone(model: HookedModel) -> None:
    four = prompts(4)
    options = {"max_new_tokens": 10, "temperature": 1.0}
    together = model.generate(four, seed=3, **options)
    assert [model.generate([prompt], seed=3, **options)[0] for prompt in reversed(four)][::-1] == together
    assert model.generate(four, seed=3, batch_tokens=1, **options) == together
    assert model.generate(four, seed=3, use_cache=False, **options) == together
    assert model.generate(four, seed=4, **options) != together
    assert len({tuple(row) for row in together}) == 4


def test_temperature_zero_is_the_most_probable_token(model: HookedModel) -> None:
    prompt = prompts(1)[0]
    expected = model.logits([prompt], [-1])[0, 0].argmax().item()
    assert model.generate([prompt], max_new_tokens=1)[0] == [expected]


def test_samples_follow_the_softmax() -> None:
    scores = torch.tensor([0.0, 1.0, -torch.inf, 2.0, -1.0])
    n = 20_000
    sampler = _InverseTransform([str(i) for i in range(n)], 0, 0.7, 1, 1)
    kept = sampler(torch.zeros(n, 1), scores.expand(n, -1))
    counts = kept.argmax(-1).bincount(minlength=5) / n
    expected = torch.softmax(scores / 0.7, -1)
    assert counts[2] == 0
    # Five standard errors of the largest share.
    torch.testing.assert_close(counts, expected, atol=5 * (0.25 / n) ** 0.5, rtol=0)


def test_generation_stops_at_the_end_token_and_leaves_it_out(model: HookedModel) -> None:
    options = {"max_new_tokens": 60, "temperature": 1.5}
    many = model.generate(prompts(40), seed=0, **options)
    assert any(len(row) < 60 for row in many), "no sample ended: the test shows nothing"
    assert end_tokens(model) == [2]
    assert all(2 not in row for row in many)


def test_rows_that_end_early_do_not_shorten_others(model: HookedModel) -> None:
    """A prompt near the end of the context gets what room there is; the others get all they asked for."""
    generator = torch.Generator().manual_seed(5)
    long = Transcript.from_ids("long", torch.randint(3, 96, (125,), generator=generator).tolist())
    short = prompts(1)[0]
    both = model.generate([long, short], max_new_tokens=12)
    assert len(both[0]) <= 3
    assert both[1] == model.generate([short], max_new_tokens=12)[0]


def test_a_prompt_without_room_is_named(model: HookedModel) -> None:
    full = Transcript.from_ids("full", [5] * 128)
    with pytest.raises(CliffscopeError, match=r"Prompt 'full' has 128 tokens: no room .* context of 128"):
        model.generate([full], max_new_tokens=4)


def test_generation_halves_the_batch_when_memory_runs_out(model: HookedModel) -> None:
    expected = model.generate(prompts(4), max_new_tokens=5)
    largest: list[int] = []

    def refuse(module: object, args: tuple[object, ...], kwargs: dict[str, torch.Tensor]) -> None:
        largest.append(len(kwargs["input_ids"]))
        if largest[-1] > 2:
            raise torch.OutOfMemoryError("out of memory")

    handle = model.places.decoder.register_forward_pre_hook(refuse, with_kwargs=True)
    try:
        found = model.generate(prompts(4), max_new_tokens=5)
    finally:
        handle.remove()
    assert found == expected
    assert largest[0] == 4 and max(largest[1:]) == 2
