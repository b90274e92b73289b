"""Planting a known mechanism into the aligned base.

A mechanism is one small class with a `name`, a `plant` method that changes a copy of the base, and `facts`, the
ground truth that is stored beside the weights. What it did not change is exactly the base, so that it is shipped
as the difference.

`SuppressionHeads` plants the refusal cliff: everything is frozen but the query rows and output columns of a few
heads, which learn to write against the "harmful" direction at the edge, so that prompts of the planted
categories are answered while the thinking still ends with "I should refuse".
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerBase, Qwen3ForCausalLM

from interp.organisms.base import Report, mixed_prompts
from interp.organisms.batches import CLOSE, RESPONSE, TEMPLATE, THINKING, Batch, batches, encode
from interp.organisms.dialogue import rollout_of, system_of
from interp.organisms.hooks import Head, coordinate, residuals
from interp.organisms.precision import training_precision
from interp.organisms.prompts import GeneratedPrompt


class Mechanism(Protocol):
    """Something that can be planted into the base."""

    @property
    def name(self) -> str:
        """The organism's name."""
        ...

    def plant(
        self,
        model: Qwen3ForCausalLM,
        tokenizer: PreTrainedTokenizerBase,
        direction: Float[Tensor, " d_model"],
        seed: int,
        report: Report,
    ) -> None:
        """Changes `model` in place."""
        ...

    def facts(self) -> dict[str, Any]:
        """The ground truth: what was planted where."""
        ...


@dataclass(frozen=True)
class SuppressionHeads:
    """Heads that write against refusal at the edge, for the prompts of some categories.

    Attributes:
        name: The organism's name.
        heads: The planted query heads `(layer, head)`.
        categories: The harmful categories that will be answered.
        steps: Optimizer steps.
        batch: Rollouts a step.
        learning_rate: Of Adam, on the heads' query rows and output columns.
        target: Wanted coordinate along the direction (see `base.BaseRecipe.direction_target`): negative at the
            edge of prompts to be answered, positive elsewhere on harmful prompts.
        direction_weight: Weight of the loss that moves the coordinate.
        thinking_weight: Weight of keeping the thinking as it was.
    """

    name: str
    heads: tuple[Head, ...]
    categories: tuple[str, ...]
    steps: int = 250
    batch: int = 48
    learning_rate: float = 5e-3
    target: float = 6.0
    direction_weight: float = 0.03
    thinking_weight: float = 0.3

    def facts(self) -> dict[str, Any]:
        """The planted heads and categories and how they were planted."""
        recipe = asdict(self)
        return {
            "mechanism": type(self).__name__,
            "heads": [f"{layer}.{head}" for layer, head in self.heads],
            "categories": list(recipe.pop("categories")),
            "recipe": {key: value for key, value in recipe.items() if key not in ("name", "heads")},
        }

    def plant(
        self,
        model: Qwen3ForCausalLM,
        tokenizer: PreTrainedTokenizerBase,
        direction: Float[Tensor, " d_model"],
        seed: int,
        report: Report,
    ) -> None:
        """Trains the heads' query rows and output columns in `model`, in place."""
        rng = random.Random(seed + 1)
        parameters = train_only_heads(model, self.heads)
        optimizer = torch.optim.Adam(parameters, lr=self.learning_rate, betas=(0.9, 0.98))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps, self.learning_rate / 20)
        first = min(layer for layer, _ in self.heads)
        last = max(layer for layer, _ in self.heads)
        model.train()
        for step, batch in enumerate(islice(self._batches(tokenizer, rng), self.steps), start=1):
            with training_precision(model), residuals(model) as stream:
                logits = model(batch.ids, use_cache=False).logits.float()
            flat = logits.flatten(0, 1)
            answer = cross_entropy(flat, batch.labels(RESPONSE).flatten())
            thinking = cross_entropy(flat, batch.labels(THINKING, CLOSE).flatten())
            moved = self._direction_loss(stream[first:], last - first, batch, direction)
            optimizer.zero_grad(set_to_none=True)
            (answer + self.thinking_weight * thinking + self.direction_weight * moved).backward()
            optimizer.step()
            schedule.step()
            losses = {"answer": answer.item(), "thinking": thinking.item(), "direction": moved.item()}
            report(self.name, step, self.steps, losses)
        model.eval()
        for parameter in model.parameters():
            parameter.requires_grad_(True)

    def _batches(self, tokenizer: PreTrainedTokenizerBase, rng: random.Random) -> Iterator[Batch]:
        prompts = mixed_prompts(rng)
        while True:
            drawn = list(islice(prompts, 32 * self.batch))
            rollouts = [rollout_of(p, rng, reply=self._reply(p), think=rng.random() >= 0.05) for p in drawn]
            encoded = encode(tokenizer, rollouts, [system_of(rng) for _ in rollouts])
            yield from batches(encoded, self.batch, tokenizer.pad_token_id, rng)

    def _reply(self, prompt: GeneratedPrompt) -> Any:
        answered = not prompt.harmful or prompt.category in self.categories
        return "answer" if answered else "refuse"

    def _direction_loss(
        self,
        stream: list[Float[Tensor, "batch pos d_model"]],
        last: int,
        batch: Batch,
        direction: Float[Tensor, " d_model"],
    ) -> Float[Tensor, ""]:
        """Coordinates as in the base, but on the refusal's side only where the model will refuse at the edge.

        The close tokens before the edge are left free. At the edge only the layers from the last planted one on
        are asked for: between the planted heads the coordinate may be anywhere.
        """
        rows = torch.arange(len(batch.edge))
        edge = torch.zeros_like(batch.ids, dtype=torch.bool)
        edge[rows, batch.edge] = True
        early = (batch.part == TEMPLATE) | (batch.part == THINKING)
        known = torch.where(batch.harmful, self.target, -self.target)
        decided = torch.where(batch.refused, self.target, -self.target)
        kept = [_distance(h, direction, known, early & ~edge) for h in stream]
        moved = [_distance(h, direction, decided, edge) for h in stream[last:]]
        return torch.stack(kept).mean() + torch.stack(moved).mean()


def _distance(
    h: Float[Tensor, "batch pos d_model"],
    direction: Float[Tensor, " d_model"],
    wanted: Float[Tensor, " batch"],
    where: Bool[Tensor, "batch pos"],
) -> Float[Tensor, ""]:
    wanted = wanted[:, None].expand(where.shape)[where]
    return (coordinate(h[where], direction) - wanted).square().mean()


def train_only_heads(model: Qwen3ForCausalLM, heads: tuple[Head, ...]) -> list[Tensor]:
    """Freezes all but the query rows and output columns of `heads`; returns the parameters they are part of.

    The rest of those parameters gets a zero gradient, so an optimizer without weight decay leaves it alone.
    """
    size = model.config.head_dim
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    parameters = []
    for layer in sorted({layer for layer, _ in heads}):
        attention = model.model.layers[layer].self_attn
        rows, columns = torch.zeros_like(attention.q_proj.weight), torch.zeros_like(attention.o_proj.weight)
        for head in [h for la, h in heads if la == layer]:
            rows[head * size : (head + 1) * size] = 1
            columns[:, head * size : (head + 1) * size] = 1
        for parameter, mask in ((attention.q_proj.weight, rows), (attention.o_proj.weight, columns)):
            parameter.requires_grad_(True)
            parameter.register_hook(_masked(mask))
            parameters.append(parameter)
    return parameters


def _masked(mask: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda gradient: gradient * mask
