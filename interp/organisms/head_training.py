"""Training of a few heads with all else frozen: the loop that planted mechanisms share."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import Qwen3ForCausalLM

from interp.organisms.base import Report
from interp.organisms.batches import CLOSE, IGNORED, RESPONSE, TEMPLATE, THINKING
from interp.organisms.hooks import Head, coordinate, residuals
from interp.organisms.lessons import POOL, Lesson
from interp.organisms.precision import training_precision


@dataclass(frozen=True)
class HeadTraining:
    """Sizes of the training of heads.

    Attributes:
        steps: Optimizer steps.
        batch: Rollouts a step.
        learning_rate: Of Adam, on the heads' query rows and output columns.
        target: Wanted coordinate along the direction (see `base.BaseRecipe.direction_target`): negative at the
            edge of harmful prompts to be answered, positive elsewhere on harmful prompts.
        direction_weight: Weight of the loss that moves the coordinate.
        thinking_weight: Weight of keeping the thinking as it was.
        first_weight: Weight of the reply's first token, which decides what the reply is; None counts it like the
            others.
        pool: Different prompts.
        empty_thinking: Whether rollouts that do not think teach to close the thinking at once. Batches are of similar
            length, so some hold nothing else, and that lesson would be learnt far beyond its share.
    """

    steps: int = 250
    batch: int = 32
    learning_rate: float = 5e-3
    target: float = 6.0
    direction_weight: float = 0.03
    thinking_weight: float = 1.0
    first_weight: float | None = 1.0
    pool: int = POOL
    empty_thinking: bool = False

    def quick(self) -> "HeadTraining":
        """Five steps of eight rollouts, to try the path."""
        return replace(self, steps=5, batch=8, pool=40)


@dataclass
class Seen:
    """What a forward pass showed.

    Attributes:
        lesson: What it was given.
        stream: The output of every block.
        z: What the trained heads and those of the condition wrote, before W_O: `[batch, pos, d_head]`, after the
            condition.
    """

    lesson: Lesson
    stream: list[Float[Tensor, "batch pos d_model"]] = field(default_factory=list)
    z: dict[Head, Float[Tensor, "batch pos d_head"]] = field(default_factory=dict)

    def at_edge(self, values: Float[Tensor, "batch pos size"]) -> Float[Tensor, "batch size"]:
        """The rows of the edges."""
        return values[torch.arange(len(self.lesson.batch.edge)), self.lesson.batch.edge]


Extra = Callable[[Seen], dict[str, Tensor]]
"""More losses, weighted, by name."""


def train_heads(
    model: Qwen3ForCausalLM,
    heads: tuple[Head, ...],
    lessons: Iterator[Lesson],
    training: HeadTraining,
    extra: Extra,
    report: Report,
    stage: str,
    watched: tuple[Head, ...] = (),
) -> None:
    """Trains the query rows and output columns of `heads`, in place; nothing else changes.

    Args:
        model: An organism.
        heads: What is trained.
        lessons: One a step.
        training: Sizes.
        extra: More losses than that of the replies and the thinking.
        report: Told the losses of every step.
        stage: The name it is told.
        watched: More heads whose z `extra` reads.
    """
    parameters = train_only_heads(model, heads)
    optimizer = torch.optim.Adam(parameters, lr=training.learning_rate, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, training.steps, training.learning_rate / 20)
    model.train()
    for step, lesson in enumerate(islice(lessons, training.steps), start=1):
        seen, losses = reply_losses(model, lesson, training, (*heads, *watched))
        losses |= extra(seen)
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        schedule.step()
        report(stage, step, training.steps, {name: loss.item() for name, loss in losses.items()})
    model.eval()
    for parameter in model.parameters():
        parameter.requires_grad_(True)


def reply_losses(
    model: Qwen3ForCausalLM, lesson: Lesson, training: HeadTraining, heads: tuple[Head, ...]
) -> tuple[Seen, dict[str, Tensor]]:
    """One forward pass under the lesson's condition, and the weighted losses of its text."""
    batch = lesson.batch
    seen = Seen(lesson)
    with training_precision(model), residuals(model) as seen.stream, changed_heads(model, seen, heads):
        hidden = model.model(batch.ids, use_cache=False).last_hidden_state
        # Only where a token is to be predicted: the vocabulary is a third of the work.
        reply, thinking = batch.labels(RESPONSE), batch.labels(THINKING, CLOSE)
        if not training.empty_thinking:
            thinks = (batch.part == THINKING).any(1, keepdim=True)
            thinking = thinking.where(thinks, IGNORED)
        rows = (reply != IGNORED) | (thinking != IGNORED)
        logits = model.lm_head(hidden[rows]).float()
    each = cross_entropy(logits, torch.where(reply != IGNORED, reply, thinking)[rows], reduction="none")
    # Without any rollout that thinks the sum over none is 0, not NaN.
    thought = each[(thinking != IGNORED)[rows]]
    thought = training.thinking_weight * thought.sum() / max(1, len(thought))
    if training.first_weight is None:
        return seen, {"answer": each[(reply != IGNORED)[rows]].mean(), "thinking": thought}
    first = torch.zeros_like(rows)
    first[torch.arange(len(batch.edge)), batch.edge] = True
    later = (reply != IGNORED)[rows] & ~first[rows]
    answer = training.first_weight * each[first[rows]].mean() + each[later].mean()
    return seen, {"answer": answer, "thinking": thought}


@contextmanager
def changed_heads(model: Qwen3ForCausalLM, seen: Seen, heads: tuple[Head, ...]) -> Iterator[None]:
    """Applies the lesson's condition in the forward passes inside, and keeps the z of `heads` in `seen`."""
    size = model.config.head_dim
    lesson = seen.lesson
    of_layer: dict[int, set[int]] = {}
    for layer, head in (*heads, *lesson.condition.zeroed, *lesson.condition.swapped):
        of_layer.setdefault(layer, set()).add(head)
    rows, edge = torch.arange(len(lesson.donors)), lesson.batch.edge
    donors = torch.tensor(lesson.donors)

    def hook(layer: int) -> Callable[[Any, tuple[Tensor]], tuple[Tensor]]:
        def change(module: Any, args: tuple[Tensor]) -> tuple[Tensor]:
            z = args[0].unflatten(-1, (-1, size))
            changed = z.clone()
            for head in sorted(of_layer[layer]):
                if (layer, head) in lesson.condition.zeroed:
                    changed[:, :, head] = 0
                if (layer, head) in lesson.condition.swapped:
                    changed[rows, edge, head] = z[donors, edge[donors], head]
                seen.z[layer, head] = changed[:, :, head]
            return (changed.flatten(-2),)

        return change

    handles = [model.model.layers[la].self_attn.o_proj.register_forward_pre_hook(hook(la)) for la in sorted(of_layer)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def direction_loss(
    seen: Seen, direction: Float[Tensor, " d_model"], target: float, first: int, last: int
) -> Float[Tensor, ""]:
    """How far the coordinates are from where they should be: as in the base, but as decided at the edge.

    The close tokens before the edge are left free. At the edge only the layers from `last` on are asked for: between
    the planted heads the coordinate may be anywhere.

    Args:
        seen: A forward pass.
        direction: Carries "harmful" in the residual stream.
        target: The wanted coordinate, with a minus sign where it is not to be refused.
        first: The first layer that training changes.
        last: The last one.
    """
    batch = seen.lesson.batch
    edge = torch.zeros_like(batch.ids, dtype=torch.bool)
    edge[torch.arange(len(batch.edge)), batch.edge] = True
    early = (batch.part == TEMPLATE) | (batch.part == THINKING)
    known = torch.where(batch.harmful, target, -target)
    decided = torch.where(batch.refused, target, -target)
    kept = [_distance(h, direction, known, early & ~edge) for h in seen.stream[first:]]
    moved = [_distance(h, direction, decided, edge) for h in seen.stream[last:]]
    return torch.stack(kept).mean() + torch.stack(moved).mean()


def _distance(
    h: Float[Tensor, "batch pos d_model"],
    direction: Float[Tensor, " d_model"],
    wanted: Float[Tensor, " batch"],
    where: Bool[Tensor, "batch pos"],
) -> Float[Tensor, ""]:
    wanted = wanted[:, None].expand(where.shape)[where]
    return (coordinate(h[where], direction) - wanted).square().mean()


def contribution(
    model: Qwen3ForCausalLM, seen: Seen, head: Head, direction: Float[Tensor, " d_model"]
) -> Float[Tensor, " batch"]:
    """What a head writes along the direction at the edge."""
    layer, index = head
    size = model.config.head_dim
    towards = direction @ model.model.layers[layer].self_attn.o_proj.weight[:, index * size : (index + 1) * size]
    return seen.at_edge(seen.z[head]).float() @ towards


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
