"""Tiny random models of every listed architecture, made from their configurations."""

import copy
from typing import Any

import torch
import transformers

_COMMON: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GROUPED: dict[str, Any] = {**_COMMON, "num_key_value_heads": 2}
_GPT2: dict[str, Any] = {
    "vocab_size": 96, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 128, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip

CONFIGS = {
    "llama": transformers.LlamaConfig(**_GROUPED),
    "qwen2": transformers.Qwen2Config(**_GROUPED),
    "qwen3": transformers.Qwen3Config(**_GROUPED, head_dim=16),
    # Sliding windows shorter than the texts, so that a wrong position or mask shows.
    "gemma3": transformers.Gemma3TextConfig(
        **_GROUPED,
        head_dim=16,
        query_pre_attn_scalar=16,
        sliding_window=8,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"],
    ),
    "mistral": transformers.MistralConfig(**_GROUPED, sliding_window=8),
    "phi3": transformers.Phi3Config(**_GROUPED),
    "gpt2": transformers.GPT2Config(**_GPT2),
    "gpt_neox": transformers.GPTNeoXConfig(**_COMMON),
    "olmo2": transformers.Olmo2Config(**_GROUPED),
    "mixtral": transformers.MixtralConfig(**_GROUPED, num_local_experts=4, num_experts_per_tok=2),
    "qwen3_moe": transformers.Qwen3MoeConfig(
        **_GROUPED, head_dim=16, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24
    ),
}  # fmt: skip

PARALLEL = {"gpt_neox"}
"""Architectures whose attention and MLP read the same residual stream, so that there is no `hook_resid_mid`."""


def random_model(name: str, seed: int = 0) -> Any:
    """A model of a listed architecture."""
    return model_of(CONFIGS[name], seed)


def model_of(config: transformers.PreTrainedConfig, seed: int = 0) -> Any:
    """A model with random weights, large enough that a mistake is not lost in rounding."""
    torch.manual_seed(seed)
    # A copy: a model keeps its configuration, and a test may change it.
    model = transformers.AutoModelForCausalLM.from_config(copy.deepcopy(config)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.15)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model
