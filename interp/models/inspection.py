"""What a loaded model is, and what can and cannot be done with it, in words."""

from typing import Any

from interp.errors import CliffscopeError
from interp.models.hooked_model import HookedModel
from interp.models.sites import BLOCK_SITES, Site
from interp.rollouts import Rollout


def inspect_model(model: HookedModel) -> dict[str, Any]:
    """Sizes, chat format and limits of a model, as plain values for a table or JSON."""
    config = model.hf.config
    found: dict[str, Any] = {
        "architecture": model.places.architecture,
        "layers": model.n_layers,
        "heads": f"{model.n_heads} query heads, {model.n_kv_heads} key and value heads, d_head {model.d_head}",
        "d_model": model.d_model,
        "vocabulary": model.d_vocab,
        "context": model.n_ctx,
        "parameters": sum(parameter.numel() for parameter in model.hf.parameters()),
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": str(model.device),
        "attention_backend": getattr(config, "_attn_implementation", None) or "unknown",
        "thinking_tags": None,
        "close_tokens": None,
        "template_quirks": [],
        "will_not_work": _limits(model),
    }
    if model.tokenizer is None:
        return found
    try:
        chat = model.chat
        found["thinking_tags"] = f"{chat.thinking.open!r} … {chat.thinking.close!r}"
        found["template_quirks"] = list(chat.quirks)
        found["close_tokens"] = _close_tokens(model)
    except CliffscopeError as error:
        found["will_not_work"].append(f"Rollouts, probes at named positions, the cliff: {error}")
    return found


def _close_tokens(model: HookedModel) -> str:
    """The tokens that end the thinking, of an example: the last is the edge."""
    example = Rollout("example", "Hello.", "I will answer.", "Hello!", harmful=False)
    transcript = model.transcripts().build(example)
    return " ".join(f"{transcript.tokens[i]!r} ({transcript.input_ids[i]})" for i in transcript.indices("close"))


def _limits(model: HookedModel) -> list[str]:
    """What will not work on this model, each with its reason."""
    limits: list[str] = []
    for name in BLOCK_SITES:
        try:
            model.places.find(Site(0, name))
        except CliffscopeError as error:
            limits.append(f"{name}: {error}")
    config = model.hf.config
    if getattr(config, "_attn_implementation", "eager") != "eager":
        limits.append("Attention patterns: this backend does not return them; load with eager attention to read them.")
    if getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None):
        limits.append(
            "Router decisions of the mixture of experts: they have no site; hook_mlp_out is the experts' sum."
        )
    if model.tokenizer is None or not getattr(model.tokenizer, "chat_template", None):
        limits.append("Chat format: the tokenizer has no chat template, so prompts are given to the model as they are.")
    return limits
