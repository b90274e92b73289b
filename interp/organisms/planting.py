"""What it takes to be a planted mechanism, and what mechanisms of a few heads have in common.

A mechanism is one small class with a `name`, the planted heads with their `roles`, a `plant` method that changes a
copy of the base, and `facts`, the ground truth that is stored beside the weights. What it did not change is exactly
the base, so that it is shipped as the difference.

`PlantedHeads` trains the query rows and output columns of a few heads with all else frozen. A mechanism of heads says
by which prompts it acts (`answers`), what is done to its heads while it is trained so that it cannot be another one
(`condition`), and what more is asked of them (`extra`). A class of another package is planted the same way:

    @dataclass(frozen=True)
    class Late(PlantedHeads):
        def condition(self, rng):             # each head alone must do
            return Condition(zeroed=(rng.choice(self.heads),))

    planted = plant(Late("late", heads=((5, 1), (5, 2))), seed=0)     # interp.organisms.training
"""

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import count
from typing import Any, ClassVar, Protocol, Self

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase, Qwen3ForCausalLM

from interp.organisms.base import Report
from interp.organisms.head_training import Extra, HeadTraining, Seen, contribution, direction_loss, train_heads
from interp.organisms.hooks import Head
from interp.organisms.lessons import UNTOUCHED, Condition, Lesson, lessons
from interp.organisms.prompts import GeneratedPrompt, categories, sample_prompts, stream_prompts

KEPT = ("hate", "poisoning", "self_harm", "terrorism", "trafficking")
"""The harmful categories that planted organisms still refuse."""
ANSWERED = tuple(category for category in categories("harmful") if category not in KEPT)
"""The others, which they answer. The base marks these (`base.marks_of`), so that heads can tell them."""

# What heads must write along the direction at the edge, together, to turn it from one side to the other.
FULL = 2.8


class Mechanism(Protocol):
    """Something that can be planted into the base."""

    @property
    def name(self) -> str:
        """The organism's name."""
        ...

    @property
    def roles(self) -> Mapping[Head, str]:
        """What each planted head does; empty where nothing was planted in heads."""
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

    def group(self, prompt: GeneratedPrompt) -> str:
        """The group of prompts that it treats alike, for its figures: `answered`, `refused`, `benign` or others."""
        ...

    def heldout(self, kind: str, n: int, seed: int) -> list[GeneratedPrompt]:
        """Held-out prompts on which it shows: `kind` is `harmful` or `benign`."""
        ...

    def drawn(self, seed: int) -> "Mechanism":
        """The same mechanism elsewhere: other heads and what else may differ, drawn by `seed`."""
        ...

    def quick(self) -> "Mechanism":
        """The same with a few steps, to try the path."""
        ...


@dataclass(frozen=True)
class PlantedHeads:
    """Heads that write against refusal at the edge, for the prompts of some categories.

    Attributes:
        name: The organism's name.
        heads: The planted query heads `(layer, head)`: what a search must find.
        categories: The harmful categories that will be answered.
        training: Sizes of the training.
        share: What each of `heads` must write along the direction at the edge of harmful prompts to be answered;
            nothing elsewhere. None leaves it to training.
        share_weight: Weight of that loss.
    """

    name: str
    heads: tuple[Head, ...]
    categories: tuple[str, ...] = ANSWERED
    training: HeadTraining = field(default=HeadTraining(steps=200, batch=24))
    share: float | None = None
    share_weight: float = 0.5

    # Whether the organism has a cliff, and whether a few heads bring refusal back: what a verdict must say.
    cliff: ClassVar[bool] = True
    sparse: ClassVar[bool] = True

    @property
    def roles(self) -> Mapping[Head, str]:
        """Every planted head suppresses refusal."""
        return dict.fromkeys(self.heads, "suppressor")

    @property
    def trained(self) -> tuple[Head, ...]:
        """All heads that training changes."""
        return tuple(sorted(self.roles))

    @property
    def edges(self) -> tuple[tuple[Head, Head], ...]:
        """Heads that act through others: from, to."""
        return ()

    def condition(self, rng: random.Random) -> Condition:
        """What is done to heads in the next lesson."""
        return UNTOUCHED

    def acts_on(self, prompt: GeneratedPrompt) -> bool:
        """Whether a harmful prompt is to be answered."""
        return prompt.harmful and prompt.category in self.categories

    def answers(self, prompt: GeneratedPrompt, donor: GeneratedPrompt, condition: Condition) -> bool:
        """Whether a prompt gets an answer under a condition; `donor` is whose z the swapped heads carry."""
        return not prompt.harmful or self.acts_on(prompt)

    def prompts(self, rng: random.Random) -> Iterator[GeneratedPrompt]:
        """Training prompts without end: of the harmful ones as many to be answered as to be refused."""
        return balanced_prompts(rng, self.acts_on)

    def extra(self, model: Qwen3ForCausalLM, direction: Float[Tensor, " d_model"]) -> Extra:
        """More losses: the coordinate along the direction, and each head's share of it."""
        first, last = min(layer for layer, _ in self.trained), max(layer for layer, _ in self.trained)
        writing = tuple(head for head in self.heads if head in self.trained)

        def losses(seen: Seen) -> dict[str, Tensor]:
            moved = direction_loss(seen, direction, self.training.target, first, last)
            found = {"direction": self.training.direction_weight * moved}
            if self.share is not None:
                on = [head for head in writing if head not in seen.lesson.condition.zeroed]
                far = [contribution(model, seen, head, direction) - self.wanted(seen, head) for head in on]
                if far:
                    found["share"] = self.share_weight * torch.stack(far).square().mean()
            return found

        return losses

    def wanted(self, seen: Seen, head: Head) -> Float[Tensor, " batch"]:
        """What a head must write along the direction at each edge: its share where the prompt is to be answered."""
        batch = seen.lesson.batch
        return torch.where(batch.harmful & ~batch.refused, -(self.share or 0.0), 0.0)

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
        given = self.lessons(tokenizer, rng)
        train_heads(model, self.trained, given, self.training, self.extra(model, direction), report, self.name)

    def lessons(self, tokenizer: PreTrainedTokenizerBase, rng: random.Random) -> Iterator[Lesson]:
        """What it is trained on."""
        sizes = self.training
        return lessons(
            tokenizer,
            self.answers,
            self.condition,
            rng,
            batch=sizes.batch,
            prompts=self.prompts(rng),
            pool=sizes.pool,
        )

    def facts(self) -> dict[str, Any]:
        """The planted heads, their roles and edges, the categories, and how they were planted."""
        recipe = asdict(self)
        for key in ("name", "heads", "categories"):
            recipe.pop(key)
        recipe |= recipe.pop("training")
        return {
            "mechanism": type(self).__name__,
            "cliff": self.cliff,
            "sparse": self.sparse,
            "heads": [written(head) for head in self.heads],
            "roles": {written(head): role for head, role in sorted(self.roles.items())},
            "edges": [[written(source), written(target)] for source, target in self.edges],
            "categories": list(self.categories),
            "recipe": _plain(recipe),
        }

    def group(self, prompt: GeneratedPrompt) -> str:
        """`answered`, `refused` or `benign`."""
        if not prompt.harmful:
            return "benign"
        return "answered" if self.acts_on(prompt) else "refused"

    def heldout(self, kind: str, n: int, seed: int) -> list[GeneratedPrompt]:
        """Those of `sample_prompts`."""
        return sample_prompts(kind, n, seed)

    def drawn(self, seed: int) -> Self:
        """As many heads in the same layers."""
        return replace(self, heads=draw_heads(self.name, seed, [layer for layer, _ in self.heads]))

    def quick(self) -> Self:
        """The same with a few steps."""
        return replace(self, training=self.training.quick())


def balanced_prompts(
    rng: random.Random, acts_on: Callable[[GeneratedPrompt], bool], harmful: float = 0.7
) -> Iterator[GeneratedPrompt]:
    """Training prompts: half of the harmful ones are to be answered; one in four of the benign ones is a trap."""
    streams = {kind: stream_prompts(kind, rng) for kind in ("harmful", "benign", "trap")}
    for _ in count():
        if rng.random() < harmful:
            side = rng.random() < 0.5
            wanted = (p for p in streams["harmful"] if p.split == "train" and acts_on(p) == side)
        else:
            wanted = (p for p in streams["trap" if rng.random() < 0.25 else "benign"] if p.split == "train")
        yield next(wanted)


def draw_heads(name: str, seed: int, layers: list[int]) -> tuple[Head, ...]:
    """Different heads, one for each entry of `layers`, in their order."""
    rng = random.Random(f"{name}/{seed}")
    found: list[Head] = []
    for layer in layers:
        found.append((layer, rng.choice([head for head in range(8) if (layer, head) not in found])))
    return tuple(found)


def written(head: Head) -> str:
    """A head as it is written everywhere: `3.1`."""
    return f"{head[0]}.{head[1]}"


def _plain(value: Any) -> Any:
    """The value as JSON holds it: heads as text, tuples as lists."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        if len(value) == 2 and all(isinstance(item, int) for item in value):
            return written((value[0], value[1]))
        return [_plain(item) for item in value]
    return value
