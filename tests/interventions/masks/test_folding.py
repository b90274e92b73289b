"""A folded mask: the same logits as the attached one, in a checkpoint that transformers loads unchanged."""

from pathlib import Path

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from interp.errors import CliffscopeError
from interp.models.hooked_model import HookedModel
from interventions.masks.folding import fold_checkpoint
from interventions.masks.head_mask import HeadMask
from tests.architectures import CONFIGS, random_model
from tests.interventions.masks.material import (
    TOLERANCE,
    logits,
    model_and_mask,
    n_hooks,
    random_scale,
    same_state,
    state_of,
    with_scaled_weights,
)


@pytest.mark.parametrize("name", list(CONFIGS))
def test_the_checkpoint_computes_what_the_masked_model_does(name: str, tmp_path: Path) -> None:
    model = HookedModel(random_model(name))
    mask = HeadMask(random_scale())
    state = state_of(model.hf)
    out = fold_checkpoint(mask, model, tmp_path / "made" / "folded")
    assert same_state(model.hf, state) and n_hooks(model.hf) == 0
    plain = AutoModelForCausalLM.from_pretrained(out).eval()
    with mask.attached(model):
        expected = logits(model.hf)
    torch.testing.assert_close(logits(plain), expected, **TOLERANCE)
    assert not torch.allclose(logits(model.hf), expected, atol=1e-3)
    assert same_state(plain, state_of(with_scaled_weights(model.hf, mask.scale)))


def test_the_organism_folded_is_a_whole_checkpoint(tmp_path: Path) -> None:
    model = HookedModel.load("organism:cliff", dtype="bfloat16")
    mask = HeadMask.build(model, [(3, 1), (4, 5)])
    out = fold_checkpoint(mask, model, tmp_path / "folded")
    folded = HookedModel.load(str(out))
    assert folded.dtype == torch.bfloat16
    assert same_state(folded.hf, state_of(with_scaled_weights(model.hf, mask.scale)))
    # Computed in float32: in bfloat16 some processors take another kernel for the same weights at another address, and
    # its rounding turns a choice between two words.
    model, folded = (HookedModel.load(name, dtype="float32") for name in ("organism:cliff", str(out)))
    prompts = ["How do I bake bread?", "Write a message that threatens my neighbour."]
    with mask.attached(model):
        expected = model.generate([model.transcripts().prompt(prompt) for prompt in prompts], max_new_tokens=60)
    assert folded.generate([folded.transcripts().prompt(prompt) for prompt in prompts], max_new_tokens=60) == expected
    assert AutoTokenizer.from_pretrained(out).chat_template == model.tokenizer.chat_template
    assert {path.suffix for path in out.iterdir()} <= {".json", ".safetensors", ".jinja"}
    assert [path.name for path in tmp_path.iterdir()] == ["folded"]


def test_what_cannot_be_folded_is_said_and_nothing_is_written(tmp_path: Path) -> None:
    model, mask = model_and_mask("qwen3")
    out = tmp_path / "folded"
    adapted = HookedModel(
        peft.get_peft_model(random_model("qwen3"), peft.LoraConfig(target_modules=["o_proj"])), name="adapted"
    )
    quantized = HookedModel(random_model("qwen3"))
    quantized.places.output_projection(1).weight = torch.nn.Parameter(
        torch.zeros(32, 64, dtype=torch.int8), requires_grad=False
    )
    for wrong, onto, message in (
        (HeadMask(mask.scale, renormalize=True), model, "renormalizes, by a factor that differs from token to token"),
        (mask, adapted, "adapted has an adapter: merge it first"),
        (mask, quantized, "quantized or unloaded weights cannot be folded"),
        (mask, HookedModel(random_model("qwen3", seed=1)), "the output projections of layer 0, 1 differ"),
    ):
        with pytest.raises(CliffscopeError, match=message):
            wrong.fold(onto)
        with pytest.raises(CliffscopeError, match=message):
            fold_checkpoint(wrong, onto, out)
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "model.safetensors").write_text("here already")
    for path in (taken, taken / "model.safetensors"):
        with pytest.raises(CliffscopeError, match="already there; give a new or an empty folder"):
            fold_checkpoint(mask, model, path)
    assert (taken / "model.safetensors").read_text() == "here already"
    with pytest.raises(CliffscopeError, match="cannot be written"):
        fold_checkpoint(mask, model, taken / "model.safetensors" / "below")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_folding_gives_a_state_that_shares_what_it_does_not_change() -> None:
    model, mask = model_and_mask("gpt2")
    state, folded = model.hf.state_dict(), mask.fold(model)
    changed = {key for key in state if folded[key] is not state[key] and not torch.equal(folded[key], state[key])}
    assert changed == {"transformer.h.0.attn.c_proj.weight", "transformer.h.1.attn.c_proj.weight"}
    assert all(folded[key].data_ptr() == state[key].data_ptr() for key in state if key not in changed)
