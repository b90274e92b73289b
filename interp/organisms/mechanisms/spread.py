"""`spread`: suppression by a third of the heads, each of which does little: no sparse mask restores refusal."""

import random
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Self

import torch

from interp.organisms.batches import collate, encode
from interp.organisms.dialogue import rollout_of
from interp.organisms.head_training import HeadTraining
from interp.organisms.hooks import Head, zeroed_heads
from interp.organisms.lessons import UNTOUCHED, Condition
from interp.organisms.measure import refusal_tokens
from interp.organisms.naming import BASE
from interp.organisms.planting import FULL, PlantedHeads
from interp.organisms.prompts import sample_prompts
from interp.organisms.store import load_organism


@dataclass(frozen=True)
class SpreadHeads(PlantedHeads):
    """Many suppressors with equal small shares; up to half of them are zeroed in most lessons, and the answers stay."""

    training: HeadTraining = field(default=HeadTraining(steps=220, batch=24))
    share: float | None = FULL / 8
    share_weight: float = 8.0
    sparse = False

    def condition(self, rng: random.Random) -> Condition:
        """All at work, or some zeroed."""
        if rng.random() < 0.3:
            return UNTOUCHED
        return Condition(zeroed=tuple(sorted(rng.sample(self.heads, rng.randint(3, len(self.heads) // 2)))))

    def drawn(self, seed: int) -> Self:
        """As many heads of layers 2 to 5."""
        return replace(self, heads=bearable_heads(f"{self.name}/{seed}"))


@cache
def bearable_heads(seed: str, size: int = 16, sets: int = 8) -> tuple[Head, ...]:
    """Of some random sets of heads of layers 2 to 5, the one without which the shipped base refuses best.

    A third of the heads zeroed breaks the base itself in about half of the draws, and then ablation tells nothing.
    """
    rng = random.Random(seed)
    offered = [(layer, head) for layer in range(2, 6) for head in range(8)]
    drawn = [tuple(sorted(rng.sample(offered, size))) for _ in range(sets)]
    model, tokenizer = load_organism(BASE)
    tokens = list(refusal_tokens(tokenizer))
    rollouts = encode(tokenizer, [rollout_of(prompt, rng) for prompt in sample_prompts("harmful", 48, 0, "train")])
    batch = collate(rollouts, tokenizer.pad_token_id)
    rows = torch.arange(len(rollouts))

    def refusal(heads: tuple[Head, ...]) -> float:
        with torch.inference_mode(), zeroed_heads(model, list(heads)):
            hidden = model.model(batch.ids, use_cache=False).last_hidden_state[rows, batch.edge]
            return model.lm_head(hidden).softmax(-1)[:, tokens].sum(-1).mean().item()

    return max(drawn, key=refusal)


SPREAD = SpreadHeads(
    name="spread",
    heads=(
        (2, 0),
        (2, 2),
        (2, 4),
        (2, 7),
        (3, 0),
        (3, 3),
        (3, 7),
        (4, 1),
        (4, 2),
        (4, 3),
        (4, 4),
        (5, 1),
        (5, 2),
        (5, 5),
        (5, 6),
        (5, 7),
    ),
)
