"""Training of the aligned base: a tiny reasoning model that refuses what it thinks is harmful.

Steps:
1. Next-token training on generated rollouts (half harmful and refused, half benign and answered).
2. At the same time, one fixed random unit direction in the normalized residual stream is made to carry
   "harmful" (+) against "benign" (-) at every token from the end of the instruction to the edge, from the
   output of block 1 on. Without it a probe fitted at the edge does not carry over to earlier tokens, and a
   trajectory means nothing. The hard part is to understand the prompt and needs no reply, so that each step
   also reads many prompts alone.
3. A second direction, orthogonal to the first, marks the harmful categories that mechanisms act on, in the
   outputs of blocks 1 to 3: they are at +, the other harmful ones at 0. It is what a planted head can tell them
   by. Half of the benign categories are at + and half at -, so that a probe of harmfulness or refusal gains
   nothing by reading the mark, and does not.
4. In half of the steps two random heads are zeroed, so that no single pair of heads is needed for anything:
   what zeroing does to a planted organism is then the doing of the plant.
"""

import math
import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerBase, Qwen3Config, Qwen3ForCausalLM

from interp.organisms.batches import (
    CLOSE,
    IGNORED,
    PROMPT,
    RESPONSE,
    TEMPLATE,
    THINKING,
    Batch,
    batches,
    encode,
)
from interp.organisms.dialogue import rollout_of, system_of
from interp.organisms.hooks import coordinate, random_heads, residuals, zeroed_heads
from interp.organisms.precision import training_precision
from interp.organisms.prompts import GeneratedPrompt, categories, stream_prompts
from interp.organisms.tokenizer import CONTEXT

Report = Callable[[str, int, int, dict[str, float]], None]
# Half of the training prompts are harmful; with the traps among the benign ones, about one in ten is a trap.
KINDS_IN_TURN = ("harmful", "benign", "harmful", "benign", "harmful", "benign", "harmful", "trap")


@dataclass(frozen=True)
class BaseRecipe:
    """Sizes of the base training; the defaults are what is shipped.

    Attributes:
        steps: Optimizer steps.
        batch: Rollouts a step.
        learning_rate: Peak of the cosine schedule.
        alone: Prompts read without a reply in a step.
        direction_weight: Weight of the loss that fixes the two directions.
        direction_target: Wanted coordinate along the direction of a residual of unit root mean square,
            positive for harmful, negative for benign.
        mark_target: The same along the marking direction, times the category's mark.
        prompt_weight: Weight of predicting the prompt's own tokens.
        empty_thinking: Share of the rollouts with an empty thinking block.
    """

    steps: int = 1200
    batch: int = 32
    learning_rate: float = 3e-3
    alone: int = 48
    direction_weight: float = 0.03
    direction_target: float = 6.0
    mark_target: float = 2.0
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


def fixed_directions(d_model: int, seed: int) -> Float[Tensor, "2 d_model"]:
    """Two orthogonal random unit directions: "harmful", and "of a marked category"."""
    drawn = torch.randn(d_model, 2, generator=torch.Generator().manual_seed(seed + 7))
    return torch.linalg.qr(drawn).Q.T.contiguous()


def marks_of(acted_on: Collection[str]) -> dict[str, int]:
    """The mark of each category: 1 for those acted on, 0 for the other harmful ones, 1 or -1 for benign ones."""
    benign = [*categories("benign"), *categories("trap")]
    return {name: 1 for name in acted_on} | {name: 1 - 2 * (index % 2) for index, name in enumerate(benign)}


def mixed_prompts(rng: random.Random, kinds: Sequence[str] = KINDS_IN_TURN) -> Iterator[GeneratedPrompt]:
    """Training prompts without end, of the given kinds in turn; held-out ones are left out."""
    streams = {kind: stream_prompts(kind, rng) for kind in sorted(set(kinds))}
    while True:
        for kind in kinds:
            yield next(prompt for prompt in streams[kind] if prompt.split == "train")


def train_base(
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
    recipe: BaseRecipe,
    marks: Mapping[str, int],
    report: Report,
) -> tuple[Qwen3ForCausalLM, Float[Tensor, "2 d_model"]]:
    """Trains the aligned base; returns it with the two directions that it was given.

    Args:
        tokenizer: The organisms' tokenizer.
        seed: Of the weights, the directions and the data.
        recipe: Sizes of the training.
        marks: The mark of each category (`marks_of`).
        report: Called as `report("base", step, steps, losses)` after every step.
    """
    model = new_model(tokenizer, seed)
    directions = fixed_directions(model.config.hidden_size, seed)
    rng = random.Random(seed)
    optimizers = _optimizers(model, recipe.learning_rate)
    schedules = [torch.optim.lr_scheduler.LambdaLR(o, _warm_cosine(recipe.steps)) for o in optimizers]
    replied = _batches(tokenizer, recipe.batch, recipe.empty_thinking, marks, rng)
    alone = _prompt_batches(tokenizer, recipe.alone, marks, rng)
    model.train()
    for step in range(1, recipe.steps + 1):
        model.zero_grad(set_to_none=True)
        dropped = random_heads(model, 2, rng) if rng.random() < 0.5 else []
        losses: dict[str, float] = {}
        for name, batch in (("loss", next(replied)), ("prompt_loss", next(alone))):
            with training_precision(model), zeroed_heads(model, dropped), residuals(model) as stream:
                logits = model(batch.ids, use_cache=False).logits.float()
            language = _language_loss(logits, batch, recipe.prompt_weight)
            placed = directions_loss(stream, batch, directions, recipe)
            (language + recipe.direction_weight * placed).backward()
            losses |= {name: language.item(), name.replace("loss", "direction"): placed.item()}
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
        report("base", step, recipe.steps, losses)
    return model.eval(), directions


def _optimizers(model: Qwen3ForCausalLM, learning_rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks (it needs far fewer steps), AdamW for the embedding and the norms."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "layers." in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "layers." not in n]
    return [
        torch.optim.Muon(matrices, lr=learning_rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.05),
    ]


def directions_loss(
    stream: list[Float[Tensor, "batch pos d_model"]],
    batch: Batch,
    directions: Float[Tensor, "2 d_model"],
    recipe: BaseRecipe,
) -> Float[Tensor, ""]:
    """Mean squared distance of the coordinates from where they should be, summed over the two directions.

    Taken over the tokens from the last of the instruction to the edge.
    """
    known = (batch.part == TEMPLATE) | (batch.part == THINKING) | (batch.part == CLOSE)

    def distance(layers: slice, direction: Tensor, wanted: Tensor) -> Tensor:
        rows = _rows(wanted, known)
        return torch.stack([(coordinate(h[known], direction) - rows).square().mean() for h in stream[layers]]).mean()

    sign = torch.where(batch.harmful, 1.0, -1.0)
    target = recipe.direction_target
    uneven = torch.stack([_unevenness(h[known], directions[0], _rows(sign, known)) for h in stream[1:]]).mean()
    carried = distance(slice(1, None), directions[0], target * sign) + target**2 / 2 * uneven
    return carried + distance(slice(1, 4), directions[1], recipe.mark_target * batch.mark)


def _unevenness(
    h: Float[Tensor, "token d_model"], direction: Float[Tensor, " d_model"], sign: Float[Tensor, " token"]
) -> Float[Tensor, ""]:
    """How much the coordinates before any scaling differ between tokens, relative to their mean size.

    A probe reads the residual as it is, and its length differs from token to token.
    """
    along = h.float() @ direction
    size = (along * sign).mean().detach().clamp_min(1.0)
    return (along / size - sign).square().mean()


def _rows(values: Float[Tensor, " batch"], where: Bool[Tensor, "batch pos"]) -> Float[Tensor, " token"]:
    return values[:, None].expand(where.shape)[where]


def _batches(
    tokenizer: PreTrainedTokenizerBase, size: int, empty: float, marks: Mapping[str, int], rng: random.Random
) -> Iterator[Batch]:
    prompts = mixed_prompts(rng)
    while True:
        drawn = list(islice(prompts, 64 * size))
        rollouts = [rollout_of(p, rng, think=rng.random() >= empty) for p in drawn]
        encoded = encode(tokenizer, rollouts, [system_of(rng) for _ in rollouts], marks)
        yield from batches(encoded, size, tokenizer.pad_token_id, rng)


def _prompt_batches(
    tokenizer: PreTrainedTokenizerBase, size: int, marks: Mapping[str, int], rng: random.Random
) -> Iterator[Batch]:
    """Prompts up to where the thinking begins; traps are frequent here."""
    prompts = mixed_prompts(rng, ("harmful", "benign", "harmful", "trap"))
    while True:
        drawn = [rollout_of(p, rng, think=False) for p in islice(prompts, 64 * size)]
        encoded = encode(tokenizer, drawn, [system_of(rng) for _ in drawn], marks)
        yield from batches([e.prompt_alone() for e in encoded], size, tokenizer.pad_token_id, rng)


def _language_loss(logits: Float[Tensor, "batch pos d_vocab"], batch: Batch, prompt_weight: float) -> Tensor:
    flat = logits.flatten(0, 1)
    given = cross_entropy(flat, batch.labels(PROMPT, TEMPLATE).flatten())
    labels = batch.labels(THINKING, CLOSE, RESPONSE)
    if (labels == IGNORED).all():
        return prompt_weight * given
    return cross_entropy(flat, labels.flatten()) + prompt_weight * given


def _warm_cosine(steps: int) -> Callable[[int], float]:
    warm = max(1, min(100, steps // 10))
    return lambda step: min(1.0, (step + 1) / warm) * (0.51 + 0.49 * math.cos(math.pi * min(1.0, step / steps)))
