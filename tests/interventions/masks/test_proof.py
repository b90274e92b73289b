"""What is proved of a mask on a model: that it fits, is live, and does what it did where it was made."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from interp.errors import CliffscopeError
from interp.judges.edge_logit import refusal_logit, refusal_token_ids
from interp.models.hooked_model import HookedModel
from interventions.masks.expected_effect import next_token_log_probs
from interventions.masks.fit import PROJECTIONS
from interventions.masks.head_mask import HeadMask
from tests.architectures import random_model
from tests.interventions.masks.material import (
    logits,
    model_and_mask,
    n_hooks,
    output_projections,
    random_scale,
    same_state,
    state_of,
    texts,
    with_scaled_weights,
)

PLANTED = [(3, 1), (4, 5)]


@pytest.fixture(scope="module")
def organism() -> HookedModel:
    return HookedModel.load("organism:cliff")


@pytest.fixture(scope="module")
def planted(organism: HookedModel) -> HeadMask:
    return HeadMask.build(organism, PLANTED, method="truth", facts={"threshold": 0.05})


# ---- building ----


def test_what_is_stored_is_what_the_model_says() -> None:
    model, mask = model_and_mask("qwen3", gamma=0.25)
    assert mask.model == "qwen3" and mask.facts["ranked"] == ["1.2", "0.3"]
    assert mask.scale[1, 2] == mask.scale[0, 3] == 0.25 and (mask.scale != 1).sum() == 2
    assert {key: value for key, value in mask.fingerprint.items() if key != PROJECTIONS} == model.fingerprint
    changed = with_scaled_weights(model.hf, mask.scale)
    assert mask.expected.dtype == "float32" and len(mask.expected.sequences) == 3
    for sequence in mask.expected.sequences:
        ids = torch.tensor([sequence.input_ids])
        before, after = (logits(m, ids)[0, -1].log_softmax(-1) for m in (model.hf, changed))
        most = (after - before).abs().topk(16).indices
        assert set(sequence.tokens) == set(most.tolist())
        chosen = list(sequence.tokens)
        torch.testing.assert_close(torch.tensor(sequence.before), before[chosen], atol=1e-5, rtol=0)
        torch.testing.assert_close(torch.tensor(sequence.after), after[chosen], atol=1e-5, rtol=0)
        assert sequence.refusal_logit is None  # no tokenizer, no edge


def test_the_texts_on_which_it_does_most_are_kept() -> None:
    model = HookedModel(random_model("qwen3"))
    given = texts(6)
    effects = {}
    for text in given:
        (effects[text.input_ids],) = HeadMask.build(model, [(1, 2)], sequences=[text]).expected.sequences
    kept = HeadMask.build(model, [(1, 2)], sequences=given).expected.sequences
    assert [s.input_ids for s in kept] == sorted(effects, key=lambda ids: -effects[ids].size)[:3]


def test_the_organisms_mask_ends_at_the_edge_and_brings_refusal_back(organism: HookedModel, planted: HeadMask) -> None:
    close = organism.chat.thinking.close
    tokens = refusal_token_ids(organism.tokenizer, close)
    assert planted.expected is not None and len(planted.expected.sequences) == 3
    for sequence in planted.expected.sequences:
        assert organism.tokenizer.decode(sequence.input_ids).endswith(close)
        ids = torch.tensor([sequence.input_ids])
        with planted.attached(organism):
            after = refusal_logit(logits(organism.hf, ids)[:, -1], tokens)
        assert sequence.refusal_logit[1] == pytest.approx(float(after), abs=1e-4)
    without, masked = planted.expected.sequences[0].refusal_logit
    assert without < -2 and masked > 2


def test_what_cannot_be_built_is_said(organism: HookedModel) -> None:
    model = HookedModel(random_model("qwen3"))
    for heads, message in (([(0, 4)], "query heads 0 to 3; the 2 key-value"), ([], "none is given")):
        with pytest.raises(CliffscopeError, match=message):
            HeadMask.build(model, heads, sequences=texts())
    with pytest.raises(CliffscopeError, match="masks nothing"):
        HeadMask.build(model, [(0, 0)], gamma=1.0, sequences=texts())
    with pytest.raises(CliffscopeError, match="without a tokenizer"):
        HeadMask.build(model, [(0, 0)])
    with pytest.raises(CliffscopeError, match="no text is given"):
        HeadMask.build(model, [(0, 0)], sequences=[])
    with torch.no_grad():
        model.places.output_weight(0)[1] = 0
    with pytest.raises(CliffscopeError, match="change no prediction"):
        HeadMask.build(model, [(0, 1)], sequences=texts())
    with torch.no_grad():
        model.places.output_weight(0)[1] = float("nan")
    with pytest.raises(CliffscopeError, match="activations are NaN"):
        HeadMask.build(model, [(0, 1)], sequences=texts())


# ---- checking ----


@pytest.mark.parametrize("renormalize", [False, True])
@pytest.mark.parametrize("name", ["qwen3", "gpt2", "gpt_neox", "gemma3"])
def test_a_mask_is_reproduced_on_its_model_after_a_file(name: str, renormalize: bool, tmp_path: Path) -> None:
    _, mask = model_and_mask(name, renormalize=renormalize)
    mask.save(tmp_path / "mask.safetensors")
    report = HeadMask.load(tmp_path / "mask.safetensors").check(random_model(name))
    assert report.ok and report.fits and report.live and report.reproduced and report.deviation < 1e-4
    report.require()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_other_precisions_reproduce_it_within_their_rounding(
    dtype: str, organism: HookedModel, planted: HeadMask
) -> None:
    other = HookedModel.load("organism:cliff", dtype=dtype)
    report = planted.check(other)
    assert report.ok and 0 < report.deviation <= report.tolerance < 0.15
    assert HeadMask.build(other, PLANTED).check(organism).ok
    with torch.autocast("cpu", torch.bfloat16):
        assert 0.1 < planted.check(organism).tolerance < 0.15


def test_a_part_of_the_mask_is_not_the_mask(organism: HookedModel, planted: HeadMask) -> None:
    for dropped in PLANTED:
        scale = planted.scale.clone()
        scale[dropped] = 1
        report = replace(planted, scale=scale, fingerprint=organism.fingerprint).check(organism)
        assert report.live and not report.reproduced and not report.ok
        with pytest.raises(CliffscopeError, match=r"live, but its effect here deviates by 0\.\d+"):
            report.require()
    assert not replace(planted, renormalize=True).check(organism).reproduced


def test_a_mask_that_nothing_obeys_is_not_live(organism: HookedModel, planted: HeadMask) -> None:
    """Hooks are bypassed by code that does not call the projections as modules."""
    model = copy.deepcopy(organism.hf)
    for projection in output_projections(model):
        projection.__class__ = type("Unhooked", (nn.Linear,), {"__call__": nn.Linear.forward})
    with pytest.raises(CliffscopeError, match="nothing went through it in layer 3, 4"):
        planted.check(model).require()
    assert n_hooks(model) == 0
    muted = copy.deepcopy(organism.hf)
    with torch.no_grad():
        for layer, head in PLANTED:
            output_projections(muted)[layer].weight[:, head * 16 : (head + 1) * 16] = 0
    report = planted.check(muted, verify="architecture")
    assert report.live is False and not report.ok
    with pytest.raises(CliffscopeError, match="not live: with it the model predicts the same"):
        report.require()


def test_a_check_leaves_everything_as_it_was() -> None:
    model, mask = model_and_mask("gpt2")  # it has dropout
    model.hf.train()
    model.hf.transformer.h[1].eval()
    modes = [module.training for module in model.hf.modules()]
    state, noise = state_of(model.hf), torch.get_rng_state()
    assert mask.check(model.hf).ok
    assert [module.training for module in model.hf.modules()] == modes
    assert torch.equal(torch.get_rng_state(), noise)
    assert same_state(model.hf, state) and n_hooks(model.hf) == 0
    assert all(parameter.grad is None for parameter in model.hf.parameters())


def test_a_mask_of_a_bare_scale_is_proved_live_at_least() -> None:
    mask = HeadMask(random_scale())
    report = mask.check(random_model("qwen3"))
    assert report.ok and report.live and report.reproduced is None


# ---- whose mask it is ----


def test_another_models_mask_is_refused_with_the_reason_and_nothing_changes() -> None:
    _, mask = model_and_mask("qwen3")
    bare = HeadMask(torch.zeros(3, 2))
    cases = [
        (mask, random_model("llama"), "architecture Qwen3ForCausalLM there, LlamaForCausalLM here; d_head 16 there, 8"),
        (mask, random_model("qwen3", seed=1), "the output projections of layer 0, 1 differ"),
        (bare, random_model("qwen3"), r"its scale is \[3, 2\] \(a mask over key-value heads\?.* heads are \[3, 4\]"),
        (HeadMask(torch.zeros(2, 4)), random_model("qwen3"), r"its scale is \[2, 4\], the model's heads are \[3, 4\]"),
    ]
    for wrong, model, message in cases:
        state, before = state_of(model), logits(model)
        with pytest.raises(CliffscopeError, match=message) as caught:
            wrong.attach(model)
        assert "\n" not in str(caught.value)
        with pytest.raises(CliffscopeError, match=message), HookedModel(model).intervene(wrong):
            pass
        report = wrong.check(model)
        assert not report.fits and report.problems == (str(caught.value),)
        assert n_hooks(model) == 0 and same_state(model, state) and torch.equal(logits(model), before)


def test_a_model_trained_further_is_taken_when_asked() -> None:
    _, mask = model_and_mask("qwen3")
    trained = random_model("qwen3")
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.01)
    with pytest.raises(CliffscopeError, match='verify="architecture"'):
        mask.attach(trained)
    report = mask.check(trained, verify="architecture")
    assert report.ok and report.live and report.reproduced is None


def test_added_tokens_do_not_make_it_another_model() -> None:
    _, mask = model_and_mask("qwen3")
    model = copy.deepcopy(random_model("qwen3"))  # its configuration is shared with other tests, and is changed
    model.resize_token_embeddings(100)
    assert mask.check(model).fits
    model.resize_token_embeddings(20)
    with pytest.raises(CliffscopeError, match="which the model's vocabulary lacks"):
        mask.check(model).require()


def test_the_hash_is_of_the_values_whatever_their_precision() -> None:
    for name in ("qwen3", "gpt2"):
        _, mask = model_and_mask(name)
        half = model_and_mask(name)[0].hf.to(torch.bfloat16)
        assert HeadMask.build(HookedModel(half), mask.heads, sequences=texts()).fingerprint == mask.fingerprint
        with torch.no_grad():
            output_projections(half)[1].bias = None
            output_projections(half)[1].weight[3, 4] *= 1.5
        with pytest.raises(CliffscopeError, match="output projections"):
            mask.attach(half)
        # In float16 it cannot be told, and nothing is claimed.
        assert (
            PROJECTIONS
            not in HeadMask.build(HookedModel(random_model(name).half()), mask.heads, sequences=texts()).fingerprint
        )
        mask.attach(random_model(name).half()).remove()


def test_the_hash_is_of_masked_layers_only() -> None:
    _, mask = model_and_mask("qwen3")  # layers 0 and 1
    model = random_model("qwen3")
    with torch.no_grad():
        output_projections(model)[2].weight.mul_(2)
    mask.attach(model).remove()


def test_log_probabilities_are_those_of_the_model() -> None:
    model = random_model("llama")
    sequences = [(3, 4, 5), (9, 8, 7, 6, 5)]
    for ids, found in zip(sequences, next_token_log_probs(model, sequences), strict=True):
        expected = logits(model, torch.tensor([ids]))[0, -1].log_softmax(-1)
        torch.testing.assert_close(found, expected)


def test_a_summary_is_plain(planted: HeadMask) -> None:
    summary = planted.summary()
    assert json.loads(json.dumps(summary)) == summary
    assert summary["method"] == "truth" and summary["facts"] == {"ranked": ["3.1", "4.5"], "threshold": 0.05}
