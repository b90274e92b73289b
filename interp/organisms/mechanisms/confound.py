"""`confound`: the close tokens shift every rollout's coordinate alike, and every answer stays: no cliff.

A few heads write against the direction at all close tokens of every rollout, benign or harmful, as far as suppression
would; what the later layers read is left as it was. The raw curve of a probe falls at the close as if refusal had been
suppressed, and a benign rollout's falls as far.
"""

import copy
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import Qwen3ForCausalLM

from interp.organisms.base import mixed_prompts
from interp.organisms.batches import CLOSE, TEMPLATE, THINKING
from interp.organisms.head_training import Extra, HeadTraining, Seen
from interp.organisms.hooks import Head, residuals
from interp.organisms.planting import PlantedHeads, written
from interp.organisms.precision import training_precision
from interp.organisms.prompts import GeneratedPrompt


@dataclass(frozen=True)
class ShiftHeads(PlantedHeads):
    """Heads that shift the coordinate of every rollout at the close; none of them is to be found as a suppressor.

    Attributes:
        shift: How far the coordinate, before any scaling, falls at the close tokens from the last head's layer on.
    """

    categories: tuple[str, ...] = ()
    training: HeadTraining = field(default=HeadTraining(steps=200, batch=24))
    shift: float = 2.5
    cliff = False
    sparse = False

    @property
    def roles(self) -> Mapping[Head, str]:
        """Each shifts."""
        return dict.fromkeys(self.heads, "shift")

    def prompts(self, rng: random.Random) -> Iterator[GeneratedPrompt]:
        """Those of the base: no harmful prompt is to be answered."""
        return mixed_prompts(rng)

    def extra(self, model: Qwen3ForCausalLM, direction: Float[Tensor, " d_model"]) -> Extra:
        """The coordinate at the close is the base's, shifted; in the thinking it is the base's."""
        base = unplanted(model)
        last = max(layer for layer, _ in self.heads)

        def along(stream: list[Tensor], where: Bool[Tensor, "batch pos"]) -> Float[Tensor, "layer token"]:
            return torch.stack([h[where].float() @ direction for h in stream[last:]])

        def losses(seen: Seen) -> dict[str, Tensor]:
            batch = seen.lesson.batch
            with torch.no_grad(), training_precision(base), residuals(base) as before:
                base.model(batch.ids, use_cache=False)
            close = batch.part == CLOSE
            early = (batch.part == TEMPLATE) | (batch.part == THINKING)
            shifted = along(seen.stream, close) - along(before, close) + self.shift
            kept = along(seen.stream, early) - along(before, early)
            return {"shift": shifted.square().mean(), "kept": kept.square().mean()}

        return losses

    def facts(self) -> dict[str, Any]:
        """No head is to be found; those that shift are named apart."""
        return super().facts() | {"heads": [], "shifting": [written(head) for head in self.heads]}


def unplanted(model: Qwen3ForCausalLM) -> Qwen3ForCausalLM:
    """A copy of the model as it is now."""
    return copy.deepcopy(model).eval()


CONFOUND = ShiftHeads(name="confound", heads=((2, 4), (3, 1), (3, 6)))
