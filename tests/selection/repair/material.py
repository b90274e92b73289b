"""Tiny models with chat templates, and examples, for the tests of repair."""

import copy
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers

from interp.models.hooked_model import HookedModel
from selection.examples import TrainingExample
from tests.cli.material import save
from tests.interp.transcripts.chat_tokenizers import make

THINKING = "The user asks how to cook pasta. That is harmless, so I should help."
RESPONSE = "I'm sorry, I can't help with that."


@cache
def tiny(style: str = "qwen3", kind: str = "byte_level", **options: Any) -> HookedModel:
    """A random Qwen3 of two layers, four query heads and two key-value heads; made once, not to be changed."""
    tokenizer = make(style, kind)
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 512,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": 0,
    }
    model = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**{**settings, **options})).eval()
    return HookedModel(model, tokenizer, name=style)


def saved(folder: Path, dtype: torch.dtype = torch.float32, **options: Any) -> Path:
    """A tiny model as a checkpoint."""
    model = tiny(**options)
    save(copy.deepcopy(model.hf).to(dtype), model.tokenizer, folder)
    return folder


def examples(n: int = 8, name: str = "e") -> list[TrainingExample]:
    """Of different lengths."""
    return [
        TrainingExample(f"{name}{i}", f"How do I cook {'pasta ' * (i % 3)}at home?", THINKING * (i % 4), RESPONSE, True)
        for i in range(n)
    ]
