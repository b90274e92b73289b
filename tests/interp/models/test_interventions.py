"""Interventions: they act where they say, compose, nest, and leave nothing behind; the same with a KV cache."""

from collections.abc import Sequence
from functools import partial

import pytest
import torch
from torch import Tensor

from interp.models.hooked_model import HookedModel
from interp.models.hooks import Change
from interp.models.sites import BLOCK_SITES, FINAL_NORM, resid_post
from interp.models.token_context import TokenContext
from interp.transcripts import Transcript
from tests.architectures import CONFIGS, PARALLEL, random_model

# Several interventions here only watch.
pytestmark = pytest.mark.filterwarnings("ignore::interp.models.intervening.NothingChangedWarning")

TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


def pattern(width: int) -> Tensor:
    """+1 and −1 in turn: unlike a constant, a layer norm does not take it out again."""
    return 1.0 - 2.0 * (torch.arange(width) % 2)


class Add:
    """Adds a pattern at a site, at chosen tokens (all if none are given), and notes which tokens it saw."""

    def __init__(self, site: str, amount: float = 1.0, tokens: Sequence[int] | None = None) -> None:
        self.site, self.amount, self.tokens = site, amount, tokens
        self.seen: list[list[list[int]]] = []
        self.ids: list[list[str]] = []

    def changes(self, model: HookedModel) -> dict[str, Change]:
        return {self.site: self.change}

    def change(self, value: Tensor, tokens: TokenContext) -> Tensor:
        self.seen.append(tokens.index.tolist())
        self.ids.append([transcript.id for transcript in tokens.transcripts])
        where = torch.ones_like(tokens.index, dtype=torch.bool)
        if self.tokens is not None:
            where = torch.isin(tokens.index, torch.tensor(self.tokens))
        return value + self.amount * where.reshape(*where.shape, *[1] * (value.ndim - 2)) * pattern(value.shape[-1])


class Multiply(Add):
    def change(self, value: Tensor, tokens: TokenContext) -> Tensor:
        return value * self.amount


def texts(lengths: Sequence[int]) -> list[Transcript]:
    generator = torch.Generator().manual_seed(1)
    ids = [torch.randint(3, 96, (length,), generator=generator).tolist() for length in lengths]
    return [Transcript.from_ids(f"t{number}", row) for number, row in enumerate(ids)]


@pytest.fixture(scope="module", params=list(CONFIGS))
def model(request: pytest.FixtureRequest) -> HookedModel:
    return HookedModel(random_model(request.param), name=request.param)


def test_every_site_changes_by_what_was_asked_and_only_from_there_on(model: HookedModel) -> None:
    sites = [f"blocks.1.{site}" for site in BLOCK_SITES if site != "hook_resid_mid" or model.name not in PARALLEL]
    transcripts = texts([9, 14])
    upstream = [resid_post(0), "blocks.0.attn.hook_z"]
    before = model.capture(transcripts, [*sites, *upstream], range(9))
    for site in sites:
        with model.intervene(Add(site, 0.5, tokens=[4])):
            after = model.capture(transcripts, [site, *upstream, resid_post(2)], range(9))
        expected = before[site].clone()
        expected[:, 4] += 0.5 * pattern(expected.shape[-1])
        torch.testing.assert_close(after[site], expected, **TOLERANCE)
        for other in upstream:
            assert torch.equal(after[other], before[other])
        clean = model.capture(transcripts, [resid_post(2)], range(9))[resid_post(2)]
        # Earlier tokens cannot know; but which expert's batch they are in may change how sums round.
        torch.testing.assert_close(after[resid_post(2)][:, :4], clean[:, :4], atol=1e-6, rtol=1e-6)
        assert not torch.allclose(after[resid_post(2)][:, 4:], clean[:, 4:], atol=1e-3)


def test_the_middle_of_a_block_is_changed_for_the_skip_connection_too(model: HookedModel) -> None:
    if model.name in PARALLEL:
        return  # the site does not exist; test_capture sees to the message
    with model.intervene(Add("blocks.1.hook_resid_mid", 0.5)):
        after = model.capture(texts([9]), ["blocks.1.hook_mlp_out", "blocks.1.hook_resid_mid", resid_post(1)], [-1])
    whole = after["blocks.1.hook_resid_mid"] + after["blocks.1.hook_mlp_out"]
    torch.testing.assert_close(after[resid_post(1)], whole, **TOLERANCE)


def test_zeroed_heads_are_the_same_as_zeroed_weights(model: HookedModel) -> None:
    transcripts = texts([12])

    class ZeroHead:
        def changes(self, model: HookedModel) -> dict[str, Change]:
            return {"blocks.1.attn.hook_z": self.zero}

        def zero(self, value: Tensor, tokens: TokenContext) -> Tensor:
            changed = value.clone()
            changed[:, :, 2] = 0
            return changed

    with model.intervene(ZeroHead()):
        found = model.capture(transcripts, [FINAL_NORM], range(12))[FINAL_NORM]
    weight = model.places.output_weight(1)
    kept = weight[2].detach().clone()
    with torch.no_grad():
        weight[2] = 0
        expected = model.capture(transcripts, [FINAL_NORM], range(12))[FINAL_NORM]
        weight[2] = kept
    torch.testing.assert_close(found, expected, **TOLERANCE)


def test_generation_is_the_same_with_and_without_cache_and_alone_or_batched(model: HookedModel) -> None:
    prompts = texts([5, 11, 8])
    site = resid_post(1) if model.name in PARALLEL else "blocks.1.hook_resid_mid"
    with model.intervene(Add(site, 0.7)):
        cached = model.generate(prompts, max_new_tokens=8)
        uncached = model.generate(prompts, max_new_tokens=8, use_cache=False)
        alone = [model.generate([prompt], max_new_tokens=8)[0] for prompt in prompts]
    plain = model.generate(prompts, max_new_tokens=8)
    assert cached == uncached == alone
    assert cached != plain


def test_generation_agrees_with_whole_text_passes(model: HookedModel) -> None:
    prompts = texts([5, 11])
    generated = model.generate(prompts, max_new_tokens=6)
    for prompt, new in zip(prompts, generated, strict=True):
        text = Transcript.from_ids(prompt.id, [*prompt.input_ids, *new])
        positions = list(range(len(prompt) - 1, len(text)))
        predicted = model.logits([text], positions)[0].argmax(-1).tolist()
        assert predicted[: len(new)] == new
        assert len(new) == 6 or predicted[len(new)] == 2  # or it ended by itself


def test_values_under_the_kv_cache_are_those_of_whole_text_passes(model: HookedModel) -> None:
    """Every site at every token, as seen while generating in a left-padded batch, against one pass over the text."""

    class Record:
        def __init__(self) -> None:
            self.values: dict[tuple[str, str, int], Tensor] = {}

        SITES = tuple(f"blocks.{layer}.{site}" for layer in range(3) for site in ("attn.hook_z", "hook_resid_post"))

        def changes(self, model: HookedModel) -> dict[str, Change]:
            return {site: partial(self.record, site) for site in self.SITES}

        def record(self, site: str, value: Tensor, tokens: TokenContext) -> Tensor:
            for row, transcript in enumerate(tokens.transcripts):
                for column, index in enumerate(tokens.index[row].tolist()):
                    if index >= 0:
                        self.values[site, transcript.id, index] = value[row, column].clone()
            return value

    prompts, record = texts([5, 11, 8]), Record()
    with model.intervene(record):
        generated = model.generate(prompts, max_new_tokens=6)
    compared = 0
    for prompt, new in zip(prompts, generated, strict=True):
        # The last token generated is never read again.
        whole = Transcript.from_ids(prompt.id, [*prompt.input_ids, *new[:-1]])
        captured = model.capture([whole], record.SITES, range(len(whole)))
        for site in record.SITES:
            for index in range(len(whole)):
                seen = record.values[site, prompt.id, index]
                torch.testing.assert_close(seen, captured[site][0, index], **TOLERANCE)
                compared += 1
    assert compared > 3 * 6 * 8


@pytest.fixture
def qwen() -> HookedModel:
    return HookedModel(random_model("qwen3"), name="qwen3")


def test_each_generated_token_is_seen_once_with_its_index(qwen: HookedModel) -> None:
    for use_cache in (True, False):
        watch = Add(resid_post(1), 0.0)
        with qwen.intervene(watch):
            new = qwen.generate(texts([3, 5]), max_new_tokens=4, use_cache=use_cache)
        steps = max(len(row) for row in new)
        assert watch.seen[0] == [[0, 1, 2, 3, 4], [-1, -1, 0, 1, 2]]  # longest first
        assert watch.ids[0] == ["t1", "t0"]
        last = [[4 + step, 2 + step] for step in range(1, steps)]
        assert [[row[-1] for row in seen] for seen in watch.seen[1:steps]] == last
        if use_cache:
            assert all(len(row) == 1 for seen in watch.seen[1:] for row in seen)


def test_whole_text_passes_tell_tokens_and_transcripts(qwen: HookedModel) -> None:
    for side in ("right", "left"):
        watch = Add(resid_post(0), 0.0)
        with qwen.intervene(watch):
            qwen.capture(texts([3, 5]), [resid_post(1)], [-1], padding_side=side)
        padding = [-1, -1]
        short = [0, 1, 2, *padding] if side == "right" else [*padding, 0, 1, 2]
        assert watch.seen == [[[0, 1, 2, 3, 4], short]]
        assert watch.ids == [["t1", "t0"]]


def test_a_users_own_forward_call_is_changed_too(qwen: HookedModel) -> None:
    ids = torch.tensor([texts([6])[0].input_ids])
    with torch.no_grad():
        before = qwen.hf(ids).logits
        watch = Add(resid_post(0), 0.5)
        with qwen.intervene(watch):
            after = qwen.hf(input_ids=ids).logits
    assert watch.seen == [[[0, 1, 2, 3, 4, 5]]]
    assert not torch.allclose(before, after, atol=1e-3)


def test_interventions_act_in_order_and_nest(qwen: HookedModel) -> None:
    site, transcripts = resid_post(1), texts([4])
    value = qwen.capture(transcripts, [site], [-1])[site]
    with qwen.intervene(Add(site, 1.0), Multiply(site, 2.0)):
        torch.testing.assert_close(
            qwen.capture(transcripts, [site], [-1])[site], (value + pattern(32)) * 2, **TOLERANCE
        )
    with qwen.intervene(Multiply(site, 2.0)):
        with qwen.intervene(Add(site, 1.0)):
            torch.testing.assert_close(
                qwen.capture(transcripts, [site], [-1])[site], value * 2 + pattern(32), **TOLERANCE
            )
        torch.testing.assert_close(qwen.capture(transcripts, [site], [-1])[site], value * 2, **TOLERANCE)
    assert torch.equal(qwen.capture(transcripts, [site], [-1])[site], value)


def test_the_middle_of_a_block_changes_after_what_goes_into_it_in_whatever_order_they_are_given(
    qwen: HookedModel,
) -> None:
    sites = ["blocks.1.hook_resid_pre", "blocks.1.hook_attn_out", "blocks.1.hook_resid_mid"]
    into = [Multiply(sites[0], 2.0), Multiply(sites[1], 3.0)]
    with qwen.intervene(*into):
        values = qwen.capture(texts([6]), sites, range(6))
    expected = values[sites[0]] + values[sites[1]] + pattern(32)
    for order in ([Add(sites[2]), *into], [*into, Add(sites[2])]):
        with qwen.intervene(*order):
            found = qwen.capture(texts([6]), [sites[2]], range(6))[sites[2]]
        torch.testing.assert_close(found, expected, **TOLERANCE)


def _hooks(model: HookedModel) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.hf.modules())


def test_only_own_hooks_are_removed_also_on_errors(qwen: HookedModel) -> None:
    calls: list[int] = []
    handle = qwen.places.blocks[1].register_forward_hook(lambda m, a, o: calls.append(1))
    with pytest.raises(KeyError), qwen.intervene(Add(resid_post(1))):
        raise KeyError
    with pytest.raises(ValueError, match="Unknown site"), qwen.intervene(Add(resid_post(0)), Add("nowhere")):
        pass
    assert _hooks(qwen) == 1
    qwen.capture(texts([3]), [resid_post(2)], [-1])
    assert calls == [1]
    handle.remove()


def test_a_wrong_shape_is_named(qwen: HookedModel) -> None:
    class Cut(Add):
        def change(self, value: Tensor, tokens: TokenContext) -> Tensor:
            return value[:, :1]

    with pytest.raises(ValueError, match=r"Cut at blocks\.1\.hook_resid_post returned .* expected"):
        with qwen.intervene(Cut(resid_post(1))):
            qwen.capture(texts([3]), [resid_post(2)], [-1])
