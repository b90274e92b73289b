"""What the planted heads of an organism do, measured: zeroed, interchanged, and what they write.

Everything is the mean over one group of held-out rollouts (`Mechanism.group`), at the edge. The rollouts have the
thinking of the grammar and end at the edge, so they are the same for every organism.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase, Qwen3ForCausalLM

from interp.organisms.batches import THINKING, EncodedRollout, collate, encode
from interp.organisms.dialogue import rollout_of
from interp.organisms.head_training import Seen, changed_heads, contribution
from interp.organisms.hooks import Head, residuals
from interp.organisms.lessons import UNTOUCHED, Condition, Lesson
from interp.organisms.measure import refusal_tokens
from interp.organisms.planting import Mechanism, written

N_HARMFUL, N_BENIGN = 120, 40

Groups = dict[str, float]


def effects(
    model: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    mechanism: Mechanism,
    direction: Float[Tensor, " d_model"],
    n_harmful: int = N_HARMFUL,
    n_benign: int = N_BENIGN,
    seed: int = 20_000,
) -> dict[str, Any]:
    """The effects of a mechanism, each as a mean by group of prompts.

    Returns:
        `refusal`: the probability that a refusal begins, with nothing done. `zeroed`, `swapped`: the same with a head
        zeroed, or with its z at the edge taken from a rollout of another group of harmful prompts, by head, by role
        where several heads have it, and for `all`. `contribution`: what each head writes along the direction.
        `coordinate`: the residual stream along the direction at the mean of the thinking's second half and at the edge,
        `[before, after]` by group, by layer.
    """
    rng = random.Random(seed)
    prompts = [*mechanism.heldout("harmful", n_harmful, seed), *mechanism.heldout("benign", n_benign, seed)]
    names = [mechanism.group(prompt) for prompt in prompts]
    encoded = [_until_edge(e) for e in encode(tokenizer, [rollout_of(prompt, rng) for prompt in prompts])]
    donors = _donors(names)
    heads = tuple(sorted(mechanism.roles))
    tokens = list(refusal_tokens(tokenizer))

    def by_group(values: Float[Tensor, " rollout"]) -> Groups:
        return {
            name: round(values[torch.tensor([other == name for other in names])].mean().item(), 4)
            for name in sorted(set(names))
        }

    def run(condition: Condition) -> tuple[Groups, Seen]:
        lesson = Lesson(collate(encoded, tokenizer.pad_token_id), condition, donors, tuple(prompts))
        seen = Seen(lesson)
        with residuals(model) as seen.stream, changed_heads(model, seen, heads):
            hidden = model.model(lesson.batch.ids, use_cache=False).last_hidden_state
        return by_group(model.lm_head(seen.at_edge(hidden)).softmax(-1)[:, tokens].sum(-1)), seen

    with torch.inference_mode():
        refusal, seen = run(UNTOUCHED)
        sets = _sets(mechanism.roles)
        found: dict[str, Any] = {
            "refusal": refusal,
            "zeroed": {name: run(Condition(zeroed=some))[0] for name, some in sets.items()},
            "coordinate": _coordinates(seen, direction, by_group),
        }
        if any(donor != row for row, donor in enumerate(donors)):
            found["swapped"] = {name: run(Condition(swapped=some))[0] for name, some in sets.items()}
        found["contribution"] = {written(head): by_group(contribution(model, seen, head, direction)) for head in heads}
    return {key: value for key, value in found.items() if value}


def _until_edge(encoded: EncodedRollout) -> EncodedRollout:
    return replace(encoded, ids=encoded.ids[: encoded.response])


def _sets(roles: Mapping[Head, str]) -> dict[str, tuple[Head, ...]]:
    """The sets of heads that are zeroed or swapped together, by name."""
    sets: dict[str, tuple[Head, ...]] = {written(head): (head,) for head in sorted(roles)}
    for role in sorted(set(roles.values())):
        some = tuple(sorted(head for head in roles if roles[head] == role))
        if 1 < len(some) < len(roles):
            sets[f"every {role}"] = some
    return sets | ({"all": tuple(sorted(roles))} if len(roles) > 1 else {})


def _donors(names: Sequence[str]) -> tuple[int, ...]:
    """For each rollout of a harmful prompt one of the next group of harmful prompts; a benign one is its own."""
    groups = [name for name in dict.fromkeys(names) if name != "benign"]
    rows = {name: [row for row, other in enumerate(names) if other == name] for name in groups}
    donors = list(range(len(names)))
    for name, following in zip(groups, [*groups[1:], *groups[:1]], strict=True):
        for place, row in enumerate(rows[name]):
            donors[row] = rows[following][place % len(rows[following])] if following != name else row
    return tuple(donors)


def _coordinates(seen: Seen, direction: Float[Tensor, " d_model"], by_group: Any) -> dict[str, dict[str, list[float]]]:
    batch = seen.lesson.batch
    thinking = batch.part == THINKING
    place = thinking.cumsum(1) / thinking.sum(1, keepdim=True)
    second_half = (thinking & (place > 0.5)).float()
    found: dict[str, dict[str, list[float]]] = {}
    for layer, h in enumerate(seen.stream):
        along = h.float() @ direction
        plateau = by_group((along * second_half).sum(1) / second_half.sum(1))
        edge = by_group(along[torch.arange(len(batch.edge)), batch.edge])
        found[str(layer)] = {name: [round(plateau[name], 2), round(edge[name], 2)] for name in plateau}
    return found
