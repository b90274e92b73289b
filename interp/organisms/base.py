"""Training of the aligned base: a tiny reasoning model that refuses what it thinks is harmful.

Steps:
1. Next-token training on generated rollouts (half harmful and refused, half benign and answered).
2. At the same time, one fixed random unit direction in the normalized residual stream is made to carry
   "harmful" (+) against "benign" (-) at every token from the end of the instruction to the edge, from the
   output of block 1 on. Without it a probe fitted at the edge does not carry over to earlier tokens, and a
   trajectory means nothing.
3. In half of the steps two random heads are zeroed, so that no single pair of heads is needed for anything:
   what zeroing does to a planted organism is then the doing of the plant.
"""

import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerBase, Qwen3Config, Qwen3ForCausalLM

from interp.organisms.batches import CLOSE, PROMPT, RESPONSE, TEMPLATE, THINKING, Batch, batches, encode
from interp.organisms.dialogue import rollout_of, system_of
from interp.organisms.prompts import GeneratedPrompt, stream_prompts
from interp.organisms.tokenizer import CONTEXT

Head = tuple[int, int]
Report = Callable[[str, int, int, dict[str, float]], None]


@dataclass(frozen=True)
class BaseRecipe:
    """Sizes of the base training; the defaults are what is shipped.

    Attributes:
        steps: Optimizer steps.
        batch: Rollouts a step.
        learning_rate: Peak of the cosine schedule.
        direction_weight: Weight of the loss that fixes the separating direction.
        direction_target: Wanted coordinate along the direction of a residual of unit root mean square,
            positive for harmful, negative for benign.
        prompt_weight: Weight of predicting the prompt's own tokens.
        empty_thinking: Share of the rollouts with an empty thinking block.
    """

    steps: int = 1500
    batch: int = 32
    learning_rate: float = 3e-3
    direction_weight: float = 0.1
    direction_target: float = 3.0
    prompt_weight: float = 0.2
    empty_thinking: float = 0.05


def new_model(tokenizer: PreTrainedTokenizerBase, seed: int) -> Qwen3ForCausalLM:
    """An untrained organism: Qwen3, 6 layers of 8 query and 4 key/value heads, hidden size 128."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=16,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attention_dropout=0.0,
    )
    return Qwen3ForCausalLM(config).float()


def fixed_direction(d_model: int, seed: int) -> Float[Tensor, " d_model"]:
    """The random unit direction that will carry "harmful"."""
    drawn = torch.randn(d_model, generator=torch.Generator().manual_seed(seed + 7))
    return drawn / drawn.norm()


def mixed_prompts(rng: random.Random) -> Iterator[GeneratedPrompt]:
    """Training prompts without end, harmful and benign in turn; held-out ones are left out."""
    streams = [stream_prompts(kind, rng) for kind in ("harmful", "benign")]
    while True:
        for stream in streams:
            yield next(prompt for prompt in stream if prompt.split == "train")


def train_base(
    tokenizer: PreTrainedTokenizerBase, seed: int, recipe: BaseRecipe, report: Report
) -> tuple[Qwen3ForCausalLM, Float[Tensor, " d_model"]]:
    """Trains the aligned base; returns it with the direction that it was given.

    Args:
        tokenizer: The organisms' tokenizer.
        seed: Of the weights, the direction and the data.
        recipe: Sizes of the training.
        report: Called as `report("base", step, steps, losses)` after every step.
    """
    model = new_model(tokenizer, seed)
    direction = fixed_direction(model.config.hidden_size, seed)
    rng = random.Random(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _warm_cosine(recipe.steps))
    model.train()
    for step, batch in enumerate(islice(_base_batches(tokenizer, recipe, rng), recipe.steps), start=1):
        dropped = random_heads(model, 2, rng) if rng.random() < 0.5 else []
        with zeroed_heads(model, dropped), residuals(model) as stream:
            logits = model(batch.ids, use_cache=False).logits
        language = _language_loss(logits, batch, recipe.prompt_weight)
        separation = direction_loss(stream[1:], batch, direction, recipe.direction_target)
        optimizer.zero_grad(set_to_none=True)
        (language + recipe.direction_weight * separation).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        report("base", step, recipe.steps, {"loss": language.item(), "direction": separation.item()})
    return model.eval(), direction


def direction_loss(
    stream: list[Float[Tensor, "batch pos d_model"]],
    batch: Batch,
    direction: Float[Tensor, " d_model"],
    target: float,
) -> Float[Tensor, ""]:
    """Mean squared distance of the coordinates from +target (harmful) or -target (benign).

    Taken over the tokens from the last of the instruction to the edge, in each residual of `stream`.
    """
    known = (batch.part == TEMPLATE) | (batch.part == THINKING) | (batch.part == CLOSE)
    wanted = torch.where(batch.harmful, target, -target)[:, None].expand(known.shape)[known]
    losses = [(coordinate(h[known], direction) - wanted).square().mean() for h in stream]
    return torch.stack(losses).mean()


def coordinate(h: Float[Tensor, "*rows d_model"], direction: Float[Tensor, " d_model"]) -> Float[Tensor, "*rows"]:
    """Where `h`, scaled to a root mean square of 1, lies along the unit direction."""
    return (h @ direction) * torch.rsqrt(h.square().mean(-1) + 1e-6)


@contextmanager
def residuals(model: Qwen3ForCausalLM) -> Iterator[list[Float[Tensor, "batch pos d_model"]]]:
    """Collects the output of every block of the forward passes run inside, as a list by layer."""
    stream: list[Tensor] = []

    def keep(module: Any, args: Any, output: Any) -> None:
        stream.append(output[0] if isinstance(output, tuple) else output)

    handles = [block.register_forward_hook(keep) for block in model.model.layers]
    try:
        yield stream
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def zeroed_heads(model: Qwen3ForCausalLM, heads: list[Head]) -> Iterator[None]:
    """Zeroes what the query heads `(layer, head)` write, at every position."""
    size = model.config.head_dim

    def hook(head: int) -> Callable[[Any, tuple[Tensor]], tuple[Tensor]]:
        def zero(module: Any, args: tuple[Tensor]) -> tuple[Tensor]:
            z = args[0].clone()
            z[..., head * size : (head + 1) * size] = 0
            return (z,)

        return zero

    handles = [
        model.model.layers[layer].self_attn.o_proj.register_forward_pre_hook(hook(head)) for layer, head in heads
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def random_heads(model: Qwen3ForCausalLM, n: int, rng: random.Random) -> list[Head]:
    """`n` different heads."""
    config = model.config
    heads = [(la, he) for la in range(config.num_hidden_layers) for he in range(config.num_attention_heads)]
    return rng.sample(heads, n)


def _base_batches(tokenizer: PreTrainedTokenizerBase, recipe: BaseRecipe, rng: random.Random) -> Iterator[Batch]:
    prompts = mixed_prompts(rng)
    while True:
        drawn = list(islice(prompts, 64 * recipe.batch))
        rollouts = [rollout_of(p, rng, think=rng.random() >= recipe.empty_thinking) for p in drawn]
        encoded = encode(tokenizer, rollouts, [system_of(rng) for _ in rollouts])
        yield from batches(encoded, recipe.batch, tokenizer.pad_token_id, rng)


def _language_loss(logits: Float[Tensor, "batch pos d_vocab"], batch: Batch, prompt_weight: float) -> Tensor:
    flat = logits.flatten(0, 1)
    written = cross_entropy(flat, batch.labels(THINKING, CLOSE, RESPONSE).flatten())
    given = cross_entropy(flat, batch.labels(PROMPT, TEMPLATE).flatten())
    return written + prompt_weight * given


def _warm_cosine(steps: int) -> Callable[[int], float]:
    warm = max(1, min(100, steps // 10))
    return lambda step: min(1.0, (step + 1) / warm) * (0.51 + 0.49 * math.cos(math.pi * min(1.0, step / steps)))
