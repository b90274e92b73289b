"""Tiny classifiers that are real checkpoints with a real chat template, and whose verdict is known beforehand.

A Llama of one layer whose embedding is the identity: attention is uniform and notes which marker words stand anywhere
in the text; the head is a table from the last token to the next one, tipped by that note. So it writes what a guard
model writes: a line break, its label, and the categories where there are some.
"""

import copy
from typing import Any

import torch
from tokenizers import AddedToken
from transformers import LlamaConfig, LlamaForCausalLM

from interp.models.hooked_model import HookedModel
from tests.interp.transcripts.chat_tokenizers import make

HARM, BABBLE = "KABOOM", "BLAHBLAH"
"""With the first in its text the classifier says that it is harmful, with the second it says something else."""

GUARD = (
    "{{ bos_token }}<|head|>user<|/head|>\n\nTask: look at the last message.\n"
    "{% for m in messages %}{{ m.role }}: {{ m.content | trim }}\n{% endfor %}"
    "Say safe or unsafe.<|eot|><|head|>assistant<|/head|>"
)
PARTS = GUARD.replace("m.content | trim", "m.content[0].text | trim")
FORGETFUL = GUARD.replace("in messages", "in messages[:1]")
CHAT = (
    "{{ bos_token }}{% for m in messages %}<|head|>{{ m.role }}<|/head|>\n\n{{ m.content }}<|eot|>{% endfor %}"
    "{% if add_generation_prompt %}<|head|>assistant<|/head|>{% endif %}"
)

LABELS = {"llama-guard": ("safe", "unsafe"), "harmbench": ("no", "yes")}
CODES = "\nS1,S10"


def rigged(form: str = "llama-guard", template: str | None = GUARD, n_ctx: int = 1024) -> HookedModel:
    """The classifier of a form, with a template."""
    # A copy: the other is shared by all tests.
    tokenizer: Any = copy.deepcopy(make("llama3", "byte_level"))
    refused, complied = LABELS[form]
    words = [refused, complied, "maybe", CODES, HARM, BABBLE]
    tokenizer.add_tokens([AddedToken(word, normalized=False) for word in words])
    tokenizer.chat_template = template
    token = {word: tokenizer.convert_tokens_to_ids(word) for word in [*words, "<|/head|>", "<|eot|>"]}
    (line_break,) = tokenizer.encode("\n", add_special_tokens=False)
    n, size = len(tokenizer), 512
    config = LlamaConfig(
        vocab_size=n,
        hidden_size=size,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        max_position_embeddings=n_ctx,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=token["<|eot|>"],
        pad_token_id=0,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config).eval()
    harm, babble = size - 2, size - 1
    assert n <= harm
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(n, size))
        attention: Any = model.model.layers[0].self_attn
        attention.v_proj.weight.copy_(torch.eye(size))
        attention.o_proj.weight[harm, token[HARM]] = 40.0
        attention.o_proj.weight[babble, token[BABBLE]] = 80.0
        head = model.lm_head.weight
        head[line_break, token["<|/head|>"]] = 100
        head[refused_id := token[refused], line_break] = 1.0
        head[token[complied], line_break] = 0.5
        head[token[complied], harm] = head[token["maybe"], babble] = 1.0
        head[token["<|eot|>"], refused_id] = head[token["<|eot|>"], token["maybe"]] = 100
        head[token[CODES] if form == "llama-guard" else token["<|eot|>"], token[complied]] = 100
        head[token["<|eot|>"], token[CODES]] = 100
    return HookedModel(model, tokenizer, name=f"rigged-{form}")
