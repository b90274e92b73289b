"""Loading: the code that loads any checkpoint, on checkpoints that the test makes."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from interp.errors import CliffscopeError
from interp.models.hooked_model import HookedModel
from interp.models.loading import resolve_source
from interp.transcripts import Transcript
from tests.architectures import CONFIGS, random_model
from tests.interp.transcripts.chat_tokenizers import make


def save(name: str, folder: Path) -> Path:
    random_model(name).save_pretrained(folder)
    make("r1", "byte_level").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save("qwen3", tmp_path_factory.mktemp("qwen3"))


@pytest.mark.parametrize("name", list(CONFIGS))
def test_every_architecture_loads_from_a_folder_with_its_sizes(name: str, tmp_path: Path) -> None:
    model = HookedModel.load(str(save(name, tmp_path)), device="cpu")
    assert (model.n_layers, model.n_heads, model.d_model, model.d_vocab, model.n_ctx) == (3, 4, 32, 96, 128)
    assert model.n_kv_heads == (4 if name in ("gpt2", "gpt_neox") else 2)
    assert model.d_head == (16 if name in ("qwen3", "gemma3", "qwen3_moe") else 8)
    assert model.fingerprint["architecture"] == type(model.hf).__name__
    assert not model.hf.training
    expected = AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        torch.testing.assert_close(model.hf(ids).logits, expected(ids).logits)


def test_a_bare_folder_name_is_not_asked_of_the_hub(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkpoint.parent)
    assert resolve_source(checkpoint.name) == str(checkpoint)
    assert resolve_source("owner/name") == "owner/name"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./nowhere", "no such folder"),
        ("/no/such/checkpoint", "no such folder"),
        ("a/b/c", "no such folder"),
        ("no-such-owner/no-such-model", "Model 'no-such-owner/no-such-model' cannot be loaded"),
    ],
)
def test_what_is_not_there_is_named_in_one_line(name: str, message: str) -> None:
    with pytest.raises(CliffscopeError, match=message) as caught:
        HookedModel.load(name)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(CliffscopeError, match=r"no config\.json"):
        HookedModel.load(str(tmp_path))


def test_precision_and_attention_are_as_asked(checkpoint: Path) -> None:
    model = HookedModel.load(str(checkpoint), device="cpu", dtype="bfloat16", attn_implementation="eager")
    assert model.dtype == torch.bfloat16
    assert model.hf.config._attn_implementation == "eager"
    assert HookedModel.load(str(checkpoint), device="cpu").dtype == torch.float32
    with pytest.raises(CliffscopeError, match="Unknown dtype 'float8'"):
        HookedModel.load(str(checkpoint), dtype="float8")
    with pytest.raises(CliffscopeError, match="Device 'abacus' cannot be used here"):
        HookedModel.load(str(checkpoint), device="abacus")


def test_a_model_wrapped_without_a_tokenizer_says_so() -> None:
    with pytest.raises(CliffscopeError, match="without a tokenizer"):
        HookedModel(random_model("llama")).transcripts()


def test_a_peft_model_is_read_through_its_wrapper(checkpoint: Path) -> None:
    peft = pytest.importorskip("peft")
    plain = HookedModel.load(str(checkpoint), device="cpu")
    transcript = Transcript.from_ids("text", [5, 6, 7, 8])
    sites = ["blocks.1.attn.hook_z", "blocks.2.hook_resid_post"]
    before = plain.capture([transcript], sites, [-1])
    wrapped = peft.get_peft_model(plain.hf, peft.LoraConfig(target_modules=["q_proj", "o_proj"])).eval()
    model = HookedModel(wrapped, plain.tokenizer)
    after = model.capture([transcript], sites, [-1])
    for site in sites:
        torch.testing.assert_close(after[site], before[site])
    assert model.places.output_weight(1).shape == (4, 16, 32)
    assert model.generate([transcript], max_new_tokens=3) == plain.generate([transcript], max_new_tokens=3)
