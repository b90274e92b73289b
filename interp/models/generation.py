"""Generating tokens: left-padded batches under the KV cache, with noise that depends on the prompt alone."""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import CliffscopeError
from interp.models.batching import pad, plan_batches, run_halving

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel
    from interp.transcripts import Transcript

BATCH_TOKENS = 32768
"""Tokens a batch, prompts and new tokens together."""


def generate(
    model: "HookedModel",
    prompts: Sequence["Transcript"],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    seed: int = 0,
    use_cache: bool = True,
    batch_tokens: int = BATCH_TOKENS,
) -> list[list[int]]:
    """New token ids for each prompt, without the end-of-sequence token; interventions act at every token.

    A prompt's noise comes from the seed and the prompt's id alone, so a sample does not depend on the batch, and two
    models (or one with and without an intervention) can be sampled under the same noise.

    Args:
        model: The model.
        prompts: Transcripts that end where the model is to go on.
        max_new_tokens: At most so many; fewer where the context ends.
        temperature: 0 is greedy; the model's own sampling defaults (top-p, penalties) are not used.
        seed: Of the noise.
        use_cache: Off recomputes the whole text for every token: same tokens, slower.
        batch_tokens: Token budget of a batch; a batch is halved when memory runs out.

    Raises:
        CliffscopeError: If a prompt leaves no room for a new token in the model's context.
    """
    model.require_eval()
    room = [min(max_new_tokens, model.n_ctx - len(prompt.input_ids)) for prompt in prompts]
    for prompt, new in zip(prompts, room, strict=True):
        if new < 1:
            raise CliffscopeError(
                f"Prompt {prompt.id!r} has {len(prompt.input_ids)} tokens: no room for an answer in a context of "
                f"{model.n_ctx} (or --max-new-tokens is below 1)."
            )
    results: list[list[int]] = [[] for _ in prompts]
    # Rows that may grow by the same number of tokens go together, so that no row's limit depends on its neighbours.
    for new in sorted(set(room), reverse=True):
        rows = [row for row in range(len(prompts)) if room[row] == new]
        lengths = [len(prompts[row].input_ids) + new for row in rows]
        for batch in plan_batches(lengths, batch_tokens):

            def run(part: Sequence[int], new: int = new) -> list[list[int]]:
                return _generate_batch(model, [prompts[row] for row in part], new, temperature, seed, use_cache)

            for part, generated in run_halving([rows[row] for row in batch], run):
                for row, ids in zip(part, generated, strict=True):
                    results[row] = ids
    return results


def _generate_batch(
    model: "HookedModel",
    prompts: Sequence["Transcript"],
    max_new_tokens: int,
    temperature: float,
    seed: int,
    use_cache: bool,
) -> list[list[int]]:
    from transformers import GenerationConfig

    stop = end_tokens(model)
    padding = stop[0] if stop else 0
    batch = pad([prompt.input_ids for prompt in prompts], range(len(prompts)), padding, "left", model.device)
    width = batch.input_ids.shape[1]
    ids = [prompt.id for prompt in prompts]
    broken = _Broken(len(prompts), model.device)
    sampling = [_InverseTransform(ids, seed, temperature, max_new_tokens, width)] if temperature > 0 else []
    with torch.no_grad(), model.reading(prompts, stop=stop):
        output = model.hf.generate(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            generation_config=GenerationConfig(
                max_new_tokens=max_new_tokens,
                do_sample=False,
                use_cache=use_cache,
                eos_token_id=stop or None,
                pad_token_id=padding,
            ),
            logits_processor=[broken, *sampling],
        )
    broken.check(ids)
    return [_until(ids, stop) for ids in output[:, width:].tolist()]


def end_tokens(model: "HookedModel") -> list[int]:
    """The ids that end a response, from the model's generation settings and its tokenizer."""
    found: list[int] = []
    for source in (model.hf.generation_config, model.tokenizer):
        ids = getattr(source, "eos_token_id", None)
        found += [ids] if isinstance(ids, int) else list(ids or [])
    return list(dict.fromkeys(found))


def _until(ids: list[int], stop: Sequence[int]) -> list[int]:
    ends = [number for number, token in enumerate(ids) if token in stop]
    return ids[: ends[0]] if ends else ids


class _Broken:
    """A logits processor that changes nothing and notes which rows were NaN: the token after that is arbitrary.

    Noted on the device and read once at the end, so that no token waits for it.
    """

    def __init__(self, n_rows: int, device: torch.device) -> None:
        self._rows = torch.zeros(n_rows, dtype=torch.bool, device=device)

    def __call__(self, input_ids: Tensor, scores: Float[Tensor, "batch d_vocab"]) -> Float[Tensor, "batch d_vocab"]:
        self._rows |= scores.isnan().any(dim=-1).to(self._rows.device)
        return scores

    def check(self, ids: Sequence[str]) -> None:
        """Raises `CliffscopeError` if any row was NaN."""
        rows = self._rows.nonzero().flatten().tolist()
        if rows:
            raise CliffscopeError(
                f"Prompt {ids[rows[0]]!r}: the model's activations are NaN, and its tokens would be arbitrary; "
                "try --dtype float32, or check the checkpoint."
            )


class _InverseTransform:
    """A logits processor that samples: it leaves only the token that each row's next uniform number selects.

    One number a row and token is all the noise there is, drawn on the host from a generator of the row's own.
    """

    def __init__(self, ids: Sequence[str], seed: int, temperature: float, max_new_tokens: int, width: int) -> None:
        self._temperature = temperature
        self._width = width
        self._noise = torch.stack([_uniform(seed, name, max_new_tokens) for name in ids])

    def __call__(self, input_ids: Tensor, scores: Float[Tensor, "batch d_vocab"]) -> Float[Tensor, "batch d_vocab"]:
        noise = self._noise[:, input_ids.shape[1] - self._width].to(scores.device)
        cumulative = torch.softmax(scores.float() / self._temperature, dim=-1).cumsum(dim=-1)
        # The last cumulative value may round to slightly under or over 1.
        target = noise[:, None] * cumulative[:, -1:]
        chosen = torch.searchsorted(cumulative, target, right=True).clamp(max=scores.shape[-1] - 1)
        return torch.full_like(scores, -torch.inf).scatter(-1, chosen, 0.0)


def _uniform(seed: int, name: str, count: int) -> Float[Tensor, " token"]:
    digest = hashlib.sha256(f"{seed}\x00{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    return torch.rand(count, generator=generator)
