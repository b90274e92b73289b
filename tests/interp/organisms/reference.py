"""Reading and running organisms by plain transformers, to check them and the product's own code against it."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase, Qwen3ForCausalLM

from interp.organisms import GeneratedPrompt
from interp.organisms.batches import EncodedRollout, collate
from interp.organisms.hooks import Head, zeroed_heads
from interp.organisms.prompts import words
from interp.organisms.tokenizer import CLOSE, prompt_text
from interp.rollouts import Rollout


def is_refusal(response: str) -> bool:
    """Whether a response begins like one of the organisms' own refusals."""
    starts = {opening.split("{")[0][:8] for opening in words("replies")["refusal_openings"]}
    return response.lstrip().startswith(tuple(starts))


def generate(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[GeneratedPrompt], batch: int = 100
) -> list[Rollout]:
    """Greedy rollouts by Hugging Face `generate`, left-padded, judged by `is_refusal`."""
    rollouts = []
    for start in range(0, len(prompts), batch):
        some = prompts[start : start + batch]
        inputs = tokenizer([prompt_text(p.text) for p in some], return_tensors="pt", padding=True, padding_side="left")
        with torch.inference_mode():
            out = model.generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                max_new_tokens=300,
                do_sample=False,
            )
        texts = tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        for prompt, text in zip(some, texts, strict=True):
            thinking, closed, response = text.partition(CLOSE)
            rollouts.append(
                Rollout(
                    id=prompt.id,
                    prompt=prompt.text,
                    thinking=thinking,
                    response=response if closed else None,
                    harmful=prompt.harmful,
                    category=prompt.category,
                    refused=is_refusal(response) if closed else None,
                )
            )
    return rollouts


def refusal_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The first tokens of the refusal openings, each tokenized alone."""
    return sorted({tokenizer(opening)["input_ids"][0] for opening in words("replies")["refusal_openings"]})


def refusal_probability(
    model: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    encoded: Sequence[EncodedRollout],
    zeroed: Sequence[Head] = (),
) -> float:
    """Mean probability at the edge that the next token begins a refusal, with some heads zeroed."""
    tokens = refusal_tokens(tokenizer)
    total = 0.0
    for start in range(0, len(encoded), 64):
        batch = collate(encoded[start : start + 64], tokenizer.pad_token_id)
        with torch.inference_mode(), zeroed_heads(model, list(zeroed)):
            logits = model(batch.ids, use_cache=False).logits
        chosen = logits[torch.arange(len(batch.edge)), batch.edge].softmax(-1)
        total += chosen[:, tokens].sum().item()
    return total / len(encoded)


def residual_rows(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerBase, encoded: Sequence[EncodedRollout]
) -> list[Tensor]:
    """The output of every block at every token of each rollout, `[layer, pos, d_model]`."""
    rows = []
    # What transformers calls the last hidden state is already normed.
    last: list[Tensor] = []
    handle = model.model.layers[-1].register_forward_hook(
        lambda module, args, output: last.append(output[0] if isinstance(output, tuple) else output)
    )
    try:
        for start in range(0, len(encoded), 64):
            some = encoded[start : start + 64]
            last.clear()
            with torch.inference_mode():
                ids = collate(some, tokenizer.pad_token_id).ids
                hidden = model.model(ids, use_cache=False, output_hidden_states=True).hidden_states
            stacked = torch.stack([*hidden[1:-1], *last], dim=1)
            assert stacked.shape[1] == model.config.num_hidden_layers
            rows += [stacked[i, :, : len(e.ids)].clone() for i, e in enumerate(some)]
    finally:
        handle.remove()
    return rows
