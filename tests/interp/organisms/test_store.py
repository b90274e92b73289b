"""What is shipped: names, files, export, tokenizer and template."""

import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from interp.errors import CliffscopeError
from interp.organisms import export, load_organism, names, rollout_of, sample_prompts, truth
from interp.organisms.naming import folder
from interp.organisms.tokenizer import CLOSE, OPEN, prompt_text


@pytest.fixture(scope="module")
def cliff():
    return load_organism("cliff")


@pytest.fixture(scope="module")
def aligned():
    return load_organism("aligned")


def planted_heads() -> list[tuple[int, ...]]:
    return [tuple(int(part) for part in head.split(".")) for head in truth("cliff")["heads"]]


# ---- what is shipped ----


def test_names_and_unknown_names() -> None:
    assert names()[:1] == ("aligned",)
    assert {"cliff", "random"} <= set(names())
    for call in (load_organism, truth, lambda name: export(name, "nowhere")):
        with pytest.raises(CliffscopeError, match=r"organism:clif: no such organism; use one of: aligned, .*cliff"):
            call("clif")
    assert not Path("nowhere").exists()


def test_importing_the_package_needs_no_torch() -> None:
    code = (
        "import sys, interp.organisms as o; o.names(); o.truth('cliff'); o.sample_prompts('benign', 5, 0);"
        "assert not {'torch', 'transformers', 'safetensors'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_weights_are_small_and_never_pickled() -> None:
    shipped = [path for path in folder().rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in shipped) < 12_000_000
    assert {path.suffix for path in shipped} <= {".safetensors", ".json", ".jinja"}


def test_only_the_planted_slices_differ(cliff, aligned) -> None:
    size = aligned[0].config.head_dim
    before, after = aligned[0].state_dict(), cliff[0].state_dict()
    allowed = {key: torch.zeros_like(value, dtype=torch.bool) for key, value in before.items()}
    for layer, head in planted_heads():
        rows = slice(head * size, (head + 1) * size)
        allowed[f"model.layers.{layer}.self_attn.q_proj.weight"][rows] = True
        allowed[f"model.layers.{layer}.self_attn.o_proj.weight"][:, rows] = True
    for key, value in before.items():
        changed = value != after[key]
        assert not (changed & ~allowed[key]).any(), key
        assert bool(changed.any()) == bool(allowed[key].any()), key


def test_weights_survive_bfloat16(cliff) -> None:
    for key, value in cliff[0].state_dict().items():
        assert torch.equal(value, value.to(torch.bfloat16).float()), key


@pytest.mark.parametrize("name", ["aligned", "cliff"])
def test_export_loads_with_plain_transformers(name: str, tmp_path: Path) -> None:
    out = export(name, tmp_path / "made" / name)
    model, tokenizer = load_organism(name)
    plain = AutoModelForCausalLM.from_pretrained(out).eval()
    plain_tokenizer = AutoTokenizer.from_pretrained(out)
    messages = [{"role": "user", "content": "How do I cook pasta at home?"}]
    ids = plain_tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")
    ids = ids["input_ids"]
    assert ids.tolist() == [tokenizer(prompt_text(messages[0]["content"]))["input_ids"]]
    with torch.inference_mode():
        assert torch.equal(plain(ids).logits, model(ids).logits)
        written = plain.generate(ids, max_new_tokens=300, do_sample=False)
    assert written[0, -1] == plain_tokenizer.eos_token_id
    assert CLOSE in plain_tokenizer.decode(written[0])
    # A second export into the same folder replaces it and leaves nothing else behind.
    before = sorted(out.iterdir())
    export(name, out)
    assert sorted(out.iterdir()) == before
    assert [path.name for path in out.parent.iterdir()] == [name]


def test_export_to_a_file_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("here already")
    with pytest.raises(CliffscopeError, match="taken: cannot be written"):
        export("cliff", tmp_path / "taken")
    assert (tmp_path / "taken").read_text() == "here already"


# ---- tokenizer and template ----


def test_tokenizer_round_trips_any_text(cliff) -> None:
    tokenizer = cliff[1]
    for text in ("naïve café", "日本語 🙂", "a  b\n\n\nc\t", "<think>", "<unk> <|other|>", "Straße\u200d"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_tokenizer_adds_no_bos_and_keeps_the_close(cliff) -> None:
    tokenizer = cliff[1]
    text = prompt_text("Hi") + "Okay." + CLOSE + "Sure."
    ids = tokenizer(text)["input_ids"]
    assert ids.count(tokenizer.bos_token_id) == 1 and ids[0] == tokenizer.bos_token_id
    close = tokenizer(CLOSE)["input_ids"]
    assert [tokenizer.decode([i]) for i in close] == ["\n", "</think>", "\n", "\n"]
    assert any(ids[i : i + len(close)] == close for i in range(len(ids)))
    assert not set(tokenizer.all_special_tokens) & {"<think>", "</think>"}
    assert 768 <= len(tokenizer) <= 1536


def test_chat_template(cliff) -> None:
    tokenizer = cliff[1]

    def render(messages: list[dict[str, str]], **options: bool) -> str:
        return tokenizer.apply_chat_template(messages, tokenize=False, **options)

    user = {"role": "user", "content": "Hi"}
    told = {"role": "assistant", "content": f"{OPEN}Hm.{CLOSE}Hello."}
    assert render([user], add_generation_prompt=True) == prompt_text("Hi")
    assert render([user], add_generation_prompt=True, enable_thinking=True) == prompt_text("Hi")
    assert render([user], add_generation_prompt=True, enable_thinking=False) == prompt_text("Hi", think=False)
    system = {"role": "system", "content": "Be kind."}
    assert render([system, user], add_generation_prompt=True) == prompt_text("Hi", "Be kind.")
    assert render([user, told]) == prompt_text("Hi") + f"Hm.{CLOSE}Hello.<|end|>\n"
    apart = {"role": "assistant", "content": "Hello.", "reasoning_content": "Hm."}
    assert render([user, apart]) == render([user, told])
    past = render([user, told, user], add_generation_prompt=True)
    assert "Hm." not in past and past.count("<think>") == 1 and "Hello.<|end|>" in past
    plain = {"role": "assistant", "content": "Hello."}
    assert render([user, plain]).endswith("<|assistant|>\nHello.<|end|>\n")


def test_assistant_mask_covers_what_the_assistant_wrote(cliff) -> None:
    tokenizer = cliff[1]
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": f"{OPEN}Hm.{CLOSE}Hello."}]
    out = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    kept = [i for i, on in zip(out["input_ids"], out["assistant_masks"], strict=True) if on]
    assert tokenizer.decode(kept) == f"Hm.{CLOSE}Hello.<|end|>"


def test_thinking_is_20_to_200_tokens(cliff) -> None:
    rng = random.Random(0)
    prompts = [p for kind in ("harmful", "benign") for p in sample_prompts(kind, 1500, 0)]
    lengths = [len(cliff[1](rollout_of(p, rng).thinking)["input_ids"]) for p in prompts]
    assert min(lengths) >= 20 and max(lengths) <= 200
    assert np.percentile(lengths, 95) > 2 * np.percentile(lengths, 5)
