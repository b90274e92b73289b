"""The bridge: the same tensors, the user's model untouched, and what is refused."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from interp.errors import CliffscopeError
from interp.models.hooked_model import HookedModel
from interventions.head_ablation import ScaleHeads
from interventions.masks.head_mask import HeadMask
from interventions.steering.along_direction import AddDirection
from tests.architectures import CONFIGS, random_model
from tests.circuits.material import organism
from tests.interp.models.interop.material import TEXTS, TOLERANCE, batch, direction, hooked, text

IDS = torch.tensor([TEXTS[0].input_ids])
ADDED_BY_TRANSFORMER_LENS = {"lm_head._original_component.bias", "unembed._original_component.bias"}
"""A bias of zeros at the LM head, by its two names."""


@pytest.fixture
def qwen() -> HookedModel:
    return HookedModel(random_model("qwen3"), name="qwen3")


def storages(tensors: Any) -> set[int]:
    return {tensor.untyped_storage().data_ptr() for tensor in tensors}


@torch.no_grad()
def logits(model: Any) -> Tensor:
    output = model(IDS)
    return output if isinstance(output, Tensor) else output.logits


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_every_parameter_is_the_models_own_and_the_model_stays_as_it_was(name: str) -> None:
    hf = random_model(name)
    modules = [(path, id(module)) for path, module in hf.named_modules()]
    parameters = {path: (parameter.data_ptr(), parameter.clone()) for path, parameter in hf.named_parameters()}
    config, before, rng = hf.config.to_dict(), logits(hf), torch.get_rng_state()
    bridge = HookedModel(hf, name=name).as_transformer_lens()
    assert torch.equal(torch.get_rng_state(), rng)
    assert not bridge.training and not any(module.training for module in bridge.modules())
    mine = storages([*hf.parameters(), *hf.buffers()])
    for path, parameter in [*bridge.named_parameters(), *nn.Module.named_parameters(bridge)]:
        if path not in ADDED_BY_TRANSFORMER_LENS:
            assert storages([parameter]) <= mine, f"{path} is a copy"
    assert {p.data_ptr() for p in hf.parameters()} <= {p.data_ptr() for p in bridge.parameters()}
    logits(bridge)
    assert [(path, id(module)) for path, module in hf.named_modules()] == modules
    assert hf.config.to_dict() == config
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in hf.modules())
    for path, parameter in hf.named_parameters():
        pointer, value = parameters[path]
        assert parameter.data_ptr() == pointer and torch.equal(parameter, value)
    assert torch.equal(logits(hf), before)


def test_tied_weights_stay_tied() -> None:
    hf = random_model("gemma3")
    assert hf.lm_head.weight is hf.model.embed_tokens.weight
    bridge = HookedModel(hf).as_transformer_lens()
    embedding = hf.model.embed_tokens.weight.data_ptr()
    assert bridge.embed.weight.data_ptr() == bridge.unembed.weight.data_ptr() == embedding


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_a_weight_changed_on_one_side_changes_on_the_other(name: str) -> None:
    hf = random_model(name)
    bridge = HookedModel(hf).as_transformer_lens()
    before = logits(hf)
    with torch.no_grad():
        for parameter in hf.parameters():
            parameter.mul_(0.9)
    changed = logits(hf)
    assert not torch.allclose(changed, before, atol=1e-2)
    torch.testing.assert_close(logits(bridge), changed, **TOLERANCE)
    with torch.no_grad():
        bridge.unembed.weight.mul_(0.5)
    torch.testing.assert_close(logits(hf), logits(bridge), **TOLERANCE)
    assert not torch.allclose(logits(hf), changed, atol=1e-2)


def test_precision_and_place_are_the_models() -> None:
    model = HookedModel(random_model("llama").bfloat16())
    bridge = model.as_transformer_lens()
    assert {parameter.dtype for parameter in bridge.parameters()} == {torch.bfloat16}
    assert bridge.cfg.dtype == torch.bfloat16 and bridge.cfg.device == "cpu"
    assert logits(bridge).dtype == torch.bfloat16


def test_a_model_in_training_mode_gives_a_bridge_in_evaluation_mode(qwen: HookedModel) -> None:
    qwen.hf.train()
    assert not qwen.as_transformer_lens().training
    assert qwen.hf.training


def test_text_becomes_the_tokens_of_the_tokenizer() -> None:
    model = organism("cliff")
    bridge = model.as_transformer_lens()
    words = "Tell me how to bake bread."
    assert bridge.to_tokens(words).tolist() == [model.tokenizer(words)["input_ids"]]
    assert bridge.tokenizer is not model.tokenizer
    with torch.no_grad():
        expected = model.hf(torch.tensor([model.tokenizer(words)["input_ids"]])).logits
        torch.testing.assert_close(bridge(words), expected, **TOLERANCE)


def test_what_would_change_the_model_through_the_bridge_is_refused() -> None:
    hf = random_model("mixtral")
    before = {path: parameter.clone() for path, parameter in hf.named_parameters()}
    bridge = HookedModel(hf).as_transformer_lens()
    for options in ({}, {"fold_ln": False}):
        with pytest.raises(CliffscopeError, match=r"shares its weights .*no_processing=True"):
            bridge.enable_compatibility_mode(**options)
    for move in (lambda: bridge.to(torch.float16), lambda: bridge.to("meta"), bridge.half):
        with pytest.raises(CliffscopeError, match="cannot be moved or cast alone: move or cast that model"):
            move()
    assert bridge.to("cpu") is bridge is bridge.to(torch.float32)
    bridge.enable_compatibility_mode(no_processing=True, disable_warnings=True)
    torch.testing.assert_close(logits(bridge), logits(hf), **TOLERANCE)
    for path, parameter in hf.named_parameters():
        assert torch.equal(parameter, before[path])


def test_hooks_that_would_be_lost_are_named(qwen: HookedModel) -> None:
    scale = torch.ones(3, 4)
    scale[1, 2] = 0
    with HeadMask(scale).attached(qwen), pytest.raises(CliffscopeError, match=r"hooks on 1 modules .* detach masks"):
        qwen.as_transformer_lens()
    with qwen.intervene(ScaleHeads([(1, 2)])), pytest.raises(CliffscopeError, match="leave `intervene`"):
        qwen.as_nnsight()
    qwen.as_transformer_lens()


def test_adapters_quantization_and_missing_weights_are_refused(qwen: HookedModel) -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(target_modules=["q_proj", "o_proj"], r=2)
    adapted = HookedModel(peft.get_peft_model(random_model("qwen3"), config), name="adapted")
    with pytest.raises(CliffscopeError, match=r"adapted has adapters \(PEFT\).* merge them first"):
        adapted.as_transformer_lens()
    with torch.device("meta"):
        empty = HookedModel(type(qwen.hf)(qwen.hf.config), name="empty")
    with pytest.raises(CliffscopeError, match="empty holds no weights"):
        empty.as_transformer_lens()
    qwen.hf.is_quantized = True
    with pytest.raises(CliffscopeError, match=r"qwen3 is quantized.* bfloat16"):
        qwen.as_transformer_lens()


def test_hooks_of_another_bridge_are_refused(qwen: HookedModel) -> None:
    from transformer_lens.model_bridge.sources import build_bridge_from_module

    hf = random_model("qwen3")
    foreign = build_bridge_from_module(hf, type(hf).__name__, hf_config=hf.config)
    hooks = qwen.as_transformer_lens_hooks(ScaleHeads([(1, 2)]))
    with pytest.raises(CliffscopeError, match=r"as_transformer_lens\(\) makes of the same model; they ran on another"):
        foreign.run_with_hooks(IDS, fwd_hooks=hooks)
    qwen.as_transformer_lens().run_with_hooks(IDS, fwd_hooks=hooks)


def test_hooks_act_inside_their_context_only(qwen: HookedModel) -> None:
    bridge = qwen.as_transformer_lens()
    before = logits(bridge)
    with bridge.hooks(fwd_hooks=qwen.as_transformer_lens_hooks(ScaleHeads([(1, 2)]))):
        assert not torch.allclose(logits(bridge), before, atol=1e-3)
    assert torch.equal(logits(bridge), before)


def test_what_rows_carry_is_checked() -> None:
    model = hooked("qwen3")
    bridge = model.as_transformer_lens()
    edge = ScaleHeads([(1, 2)], "edge")
    ids, mask = batch(TEXTS)

    def run(transcripts: Any, **options: Any) -> None:
        bridge.run_with_hooks(ids, fwd_hooks=model.as_transformer_lens_hooks(edge, transcripts=transcripts), **options)

    with pytest.raises(CliffscopeError, match="does not say whose tokens it carries"):
        run([], attention_mask=mask)
    with pytest.raises(CliffscopeError, match="1 transcripts were given for a batch of 2 rows"):
        run(TEXTS[:1], attention_mask=mask)
    with pytest.raises(CliffscopeError, match=r"transcript 'short' has token \d+ at 0, the row has \d+"):
        run(TEXTS[::-1], attention_mask=mask)
    with pytest.raises(CliffscopeError, match=r"'short' has 14 tokens, its row has 18: .* pass attention_mask"):
        run(TEXTS)
    with pytest.raises(CliffscopeError, match=r"transcript 'short' has 14 tokens, its row has 18"):
        run(TEXTS, attention_mask=torch.ones_like(mask))
    run(TEXTS, attention_mask=mask)
    hooks = model.as_transformer_lens_hooks(edge, transcripts=[text("other", 8, 9)])
    with pytest.raises(CliffscopeError, match=r"a second BOS may have been added"):
        bridge.run_with_hooks(torch.cat([torch.ones(1, 1, dtype=torch.long), IDS], 1), fwd_hooks=hooks)


def test_a_change_of_shape_is_named(qwen: HookedModel) -> None:
    class Cut:
        def changes(self, model: HookedModel) -> dict[str, Any]:
            return {"blocks.1.hook_resid_post": lambda value, tokens: value[:, :1]}

    with pytest.raises(ValueError, match=r"Cut at blocks\.1\.hook_resid_post returned .* expected"):
        qwen.as_transformer_lens().run_with_hooks(IDS, fwd_hooks=qwen.as_transformer_lens_hooks(Cut()))


def test_an_intervention_for_another_model_is_refused_when_it_becomes_hooks(qwen: HookedModel) -> None:
    with pytest.raises(CliffscopeError, match=r"no layer 7|7\.0"):
        qwen.as_transformer_lens_hooks(ScaleHeads([(7, 0)]))
    with pytest.raises(CliffscopeError, match="no layer 9"):
        qwen.as_transformer_lens_hooks(AddDirection(direction(qwen), 1.0, sites=["blocks.9.hook_resid_post"]))
