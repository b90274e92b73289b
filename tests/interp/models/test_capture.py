"""Captured values: the same alone, batched and padded; the same as Hugging Face's and TransformerLens' own."""

import copy
from collections.abc import Sequence
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from interp.errors import CliffscopeError
from interp.models.batching import pad, plan_batches, run_halving
from interp.models.capture import stream
from interp.models.hooked_model import HookedModel
from interp.models.sites import BLOCK_SITES, FINAL_NORM, Site, resid_post
from interp.transcripts import Transcript
from tests.architectures import CONFIGS, PARALLEL, random_model

N_LAYERS = 3
TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


def sites_of(name: str) -> list[str]:
    absent = {"hook_resid_mid"} if name in PARALLEL else set()
    blocks = [f"blocks.{layer}.{site}" for layer in range(N_LAYERS) for site in BLOCK_SITES if site not in absent]
    return [*blocks, FINAL_NORM]


def texts(lengths: Sequence[int], seed: int = 0) -> list[Transcript]:
    generator = torch.Generator().manual_seed(seed)
    ids = [torch.randint(3, 96, (length,), generator=generator).tolist() for length in lengths]
    return [Transcript.from_ids(str(number), row) for number, row in enumerate(ids)]


@pytest.fixture(scope="module", params=list(CONFIGS))
def named(request: pytest.FixtureRequest) -> tuple[str, HookedModel]:
    return request.param, HookedModel(random_model(request.param), name=request.param)


def test_padding_and_batching_change_nothing(named: tuple[str, HookedModel]) -> None:
    name, model = named
    transcripts, sites, positions = texts([5, 30, 17, 9, 23, 12]), sites_of(name), [0, 3, -2, -1]
    alone = [model.capture([transcript], sites, positions) for transcript in transcripts]
    for side in ("right", "left"):
        for budget in (1_000_000, 60, 1):
            together = model.capture(transcripts, sites, positions, batch_tokens=budget, padding_side=side)
            for site in sites:
                expected = torch.cat([capture[site] for capture in alone])
                torch.testing.assert_close(together[site], expected, **TOLERANCE)
    assert together.ids == tuple("012345")


def test_agrees_with_hugging_face(named: tuple[str, HookedModel]) -> None:
    name, model = named
    transcripts = texts([5, 30, 17])
    capture = model.capture(transcripts, sites_of(name), [0, 2, -1])
    logits = model.logits(transcripts, [0, 2, -1])
    for row, transcript in enumerate(transcripts):
        with torch.no_grad():
            output = model.hf(torch.tensor([transcript.input_ids]), output_hidden_states=True)
        at = [0, 2, -1]
        for layer in range(N_LAYERS):
            hidden = output.hidden_states[layer][0, at]
            torch.testing.assert_close(capture[f"blocks.{layer}.hook_resid_pre"][row], hidden, **TOLERANCE)
            if layer:
                torch.testing.assert_close(capture[resid_post(layer - 1)][row], hidden, **TOLERANCE)
        torch.testing.assert_close(capture[FINAL_NORM][row], output.hidden_states[-1][0, at], **TOLERANCE)
        torch.testing.assert_close(logits[row], output.logits[0, at], **TOLERANCE)


def test_agrees_with_transformer_lens(named: tuple[str, HookedModel]) -> None:
    from transformer_lens.model_bridge.sources import build_bridge_from_module

    name, model = named
    transcript = texts([24])[0]
    # The bridge replaces modules of the model that it is given, so it gets a copy.
    hf = copy.deepcopy(model.hf)
    bridge = build_bridge_from_module(hf, type(hf).__name__, hf_config=hf.config)
    with torch.no_grad():
        _, found = bridge.run_with_cache(torch.tensor([transcript.input_ids]))
    sites = [site for site in sites_of(name) if site != FINAL_NORM]
    capture = model.capture([transcript], [*sites, FINAL_NORM], range(24))
    for site in sites:
        expected = found[site][0]
        torch.testing.assert_close(capture[site][0], expected.reshape(capture[site][0].shape), **TOLERANCE)


def test_what_attention_and_mlp_add_is_the_whole_block(named: tuple[str, HookedModel]) -> None:
    name, model = named
    capture = model.capture(texts([20]), sites_of(name), [3, -1])
    for layer in range(N_LAYERS):
        added = capture[f"blocks.{layer}.hook_attn_out"] + capture[f"blocks.{layer}.hook_mlp_out"]
        whole = capture[resid_post(layer)] - capture[f"blocks.{layer}.hook_resid_pre"]
        torch.testing.assert_close(added, whole, **TOLERANCE)


def test_head_outputs_through_w_o_are_the_attention_output(named: tuple[str, HookedModel]) -> None:
    _, model = named
    transcripts = texts([20])
    for layer in range(N_LAYERS):
        projection = model.places.find(Site(layer, "attn.hook_z")).module
        outputs: list[Tensor] = []
        handle = projection.register_forward_hook(lambda m, a, output, kept=outputs: kept.append(output))
        z = model.capture(transcripts, [f"blocks.{layer}.attn.hook_z"], range(20))[f"blocks.{layer}.attn.hook_z"]
        model.hf(torch.tensor([transcripts[0].input_ids]))
        handle.remove()
        weight = model.places.output_weight(layer)
        assert weight.shape == (model.n_heads, model.d_head, model.d_model)
        by_head = torch.einsum("rphe,hed->rpd", z, weight)
        bias = 0 if getattr(projection, "bias", None) is None else projection.bias
        torch.testing.assert_close(by_head, outputs[-1] - bias, **TOLERANCE)


def test_the_pass_stops_after_the_deepest_site_and_never_runs_the_head(named: tuple[str, HookedModel]) -> None:
    _, model = named
    ran: list[str] = []
    watched = [(f"block {layer}", block) for layer, block in enumerate(model.places.blocks)]
    watched += [("norm", model.places.final_norm), ("head", model.hf.get_output_embeddings())]
    handles = [module.register_forward_pre_hook(lambda m, a, name=name: ran.append(name)) for name, module in watched]
    try:
        model.capture(texts([8]), ["blocks.0.attn.hook_z", resid_post(1)], [-1])
        assert ran == ["block 0", "block 1"]
        ran.clear()
        model.capture(texts([8]), [FINAL_NORM], [-1])
        assert ran == ["block 0", "block 1", "block 2", "norm"]
    finally:
        for handle in handles:
            handle.remove()


def test_logits_are_computed_at_the_positions_only() -> None:
    model = HookedModel(random_model("qwen3"))
    seen: list[tuple[int, ...]] = []
    head = model.hf.get_output_embeddings()
    handle = head.register_forward_hook(lambda module, args, output: seen.append(tuple(output.shape)))
    model.logits(texts([8, 30]), [-1])
    handle.remove()
    assert seen == [(2, 1, 96)]


@given(lengths=st.lists(st.integers(1, 900), min_size=1, max_size=80))
def test_batches_of_some_size_hold_little_padding(lengths: list[int]) -> None:
    for batch in plan_batches(lengths, 8192):
        longest = lengths[batch[0]]
        for place, row in enumerate(batch):
            assert lengths[row] >= 0.85 * longest or longest * place < 1024


@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=12), budget=st.integers(1, 200))
def test_batches_hold_every_row_once_and_keep_the_budget(lengths: list[int], budget: int) -> None:
    batches = plan_batches(lengths, budget)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or max(lengths[row] for row in batch) * len(batch) <= budget


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6), side=st.sampled_from(["left", "right"]))
def test_padding_keeps_each_row_in_one_piece(lengths: list[int], side: str) -> None:
    rows = [list(range(1, length + 1)) for length in lengths]
    batch = pad(rows, range(len(rows)), 0, side, torch.device("cpu"))  # type: ignore[arg-type]
    for number, row in enumerate(rows):
        start = int(batch.start[number])
        assert batch.input_ids[number, start : start + len(row)].tolist() == row
        assert batch.input_ids[number][batch.attention_mask[number] == 1].tolist() == row
    assert batch.n_tokens == sum(lengths)


@settings(max_examples=20, deadline=None)
@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=7), data=st.data())
def test_rows_come_back_in_the_order_asked(lengths: list[int], data: st.DataObject) -> None:
    model = _qwen2()
    order = data.draw(st.permutations(range(len(lengths))))
    transcripts = texts(lengths)
    budget = data.draw(st.integers(1, 100))
    straight = model.capture(transcripts, [resid_post(-1)], [-1])
    shuffled = model.capture([transcripts[row] for row in order], [resid_post(-1)], [-1], batch_tokens=budget)
    torch.testing.assert_close(shuffled[resid_post(-1)], straight[resid_post(-1)][list(order)], **TOLERANCE)


@cache
def _qwen2() -> HookedModel:
    return HookedModel(random_model("qwen2"))


def test_a_batch_is_halved_when_memory_runs_out_and_results_stay() -> None:
    model, transcripts = _qwen2(), texts([12] * 8)
    expected = model.capture(transcripts, [resid_post(2)], [-1])[resid_post(2)]
    sizes: list[int] = []

    def refuse(module: object, args: tuple[object, ...], kwargs: dict[str, Tensor]) -> None:
        sizes.append(len(kwargs["input_ids"]))
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")

    handle = model.places.decoder.register_forward_pre_hook(refuse, with_kwargs=True)
    try:
        found = model.capture(transcripts, [resid_post(2)], [-1])[resid_post(2)]
    finally:
        handle.remove()
    assert sizes == [8, 4, 2, 2, 4, 2, 2]
    torch.testing.assert_close(found, expected, **TOLERANCE)


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    def run(rows: Sequence[int]) -> int:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        list(run_halving([0, 1], run))


def test_one_row_that_does_not_fit_raises() -> None:
    def run(rows: Sequence[int]) -> int:
        raise torch.OutOfMemoryError("out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        list(run_halving([0, 1], run))


def test_nothing_is_left_behind() -> None:
    model = _qwen2()
    before = _hooks(model)
    model.capture(texts([5, 6]), ["blocks.0.attn.hook_z", resid_post(1)], [-1])
    model.logits(texts([5]), [-1])
    with pytest.raises(ZeroDivisionError):
        list(stream(model, texts([5]), [resid_post(0)], lambda site, value, batch: value / (1 // 0)))
    assert _hooks(model) == before == 0


def _hooks(model: HookedModel) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.hf.modules())


def test_weights_are_not_copied_or_changed() -> None:
    hf = random_model("llama")
    before = {name: (tensor.data_ptr(), tensor.clone()) for name, tensor in hf.state_dict().items()}
    model = HookedModel(hf)
    model.capture(texts([9]), [resid_post(-1)], [-1])
    assert model.hf is hf
    for name, tensor in hf.state_dict().items():
        pointer, value = before[name]
        assert tensor.data_ptr() == pointer and torch.equal(tensor, value)


def test_bfloat16_values_come_back_as_float32() -> None:
    model = HookedModel(random_model("qwen2").bfloat16())
    capture = model.capture(texts([9, 4]), [resid_post(-1)], [-1])
    assert capture[resid_post(-1)].dtype == torch.float32
    assert model.logits(texts([9]), [-1]).dtype == torch.float32


@pytest.mark.parametrize(
    ("site", "message"),
    [
        ("blocks.0.hook_nothing", "Unknown site 'blocks.0.hook_nothing'"),
        ("blocks.3.hook_resid_post", "no layer 3: the model has layers 0 to 2"),
        ("resid_post", "Unknown site"),
    ],
)
def test_unknown_sites_are_named(site: str, message: str) -> None:
    with pytest.raises(CliffscopeError, match=message):
        _qwen2().capture(texts([5]), [site], [-1])


def test_a_site_that_an_architecture_lacks_is_explained() -> None:
    model = HookedModel(random_model("gpt_neox"))
    with pytest.raises(CliffscopeError, match=r"GPTNeoXForCausalLM has no hook_resid_mid: .* in parallel"):
        model.capture(texts([5]), ["blocks.0.hook_resid_mid"], [-1])


def test_an_architecture_that_cannot_be_mapped_is_named() -> None:
    class UnheardOfForCausalLM(torch.nn.Module):
        pass

    with pytest.raises(CliffscopeError, match="Architecture UnheardOfForCausalLM is not among"):
        HookedModel(UnheardOfForCausalLM())


def test_training_mode_is_refused() -> None:
    hf = random_model("llama").train()
    with pytest.raises(CliffscopeError, match=r"training mode: call model\.hf\.eval\(\)"):
        HookedModel(hf).capture(texts([5]), [resid_post(0)], [-1])


def test_no_transcripts_give_no_values() -> None:
    assert _qwen2().capture([], [resid_post(0)], [-1]).values == {}
