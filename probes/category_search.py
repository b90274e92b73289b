"""Judging a search for a probe, its choice of the layer included, on categories that it did not see.

A layer that was chosen because it separates all categories has seen the held-out ones. So for every group of categories
that is held out, the layer is chosen anew on the others alone (arXiv 2603.18280): their rollouts are split by prompt
once more, and the layer is the one that separates the inner held-out side, by the same rule as the whole search uses.
The probe of that layer, fitted on all rollouts of the other categories, scores the group; the scores are pooled.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from probes.metrics import ProbeMetrics

HIGH = 0.9
"""An AUROC on prompts like those fitted from which on a probe is taken for good."""
LOW = 0.75
"""An AUROC on held-out categories below which it is not."""


@dataclass(frozen=True, eq=False)
class CategorySearch:
    """What one layer brings to that search.

    Attributes:
        labels: 1 for refusing.
        groups: The group of categories to which each rollout belongs.
        logits: Held-out logits of each rollout, by the probe that saw none of its group.
        auroc, low: On the inner held-out side, without the group, and the lower end of its interval.
    """

    labels: Int[np.ndarray, "rollout"]
    groups: Int[np.ndarray, "rollout"]
    logits: Float[np.ndarray, "position rollout"]
    auroc: Float[np.ndarray, "position group"]
    low: Float[np.ndarray, "position group"]


def deepest_as_good(layers: Sequence[int], areas: Sequence[float], lows: Sequence[float]) -> int | None:
    """The deepest layer whose AUROC is at least the lower bound of the best one's interval; `None` without any AUROC.

    Of several best ones the deepest counts; where it has no interval, its AUROC is the bound.
    """
    known = [(area, layer, low) for layer, area, low in zip(layers, areas, lows, strict=True) if not math.isnan(area)]
    if not known:
        return None
    best, _, low = max(known, key=lambda cell: cell[:2])
    bound = best if math.isnan(low) else min(low, best)
    return max(layer for area, layer, _ in known if area >= bound)


def chosen_layers(parts: Mapping[int, CategorySearch], place: int) -> list[int] | None:
    """The layer chosen without each group, at a position's place; `None` if one has no AUROC to choose by."""
    layers = sorted(parts)
    found = []
    for group in range(parts[layers[0]].auroc.shape[1]):
        areas, lows = ([float(getattr(parts[n], name)[place, group]) for n in layers] for name in ("auroc", "low"))
        if (layer := deepest_as_good(layers, areas, lows)) is None:
            return None
        found.append(layer)
    return found


def judge_search(
    parts: Mapping[int, CategorySearch], place: int, *, resamples: int, seed: int
) -> tuple[ProbeMetrics, list[int]] | None:
    """The figures of the whole search on held-out categories, and the layer of each group; `None` if not to be had."""
    layers = chosen_layers(parts, place)
    if layers is None:
        return None
    first = next(iter(parts.values()))
    logits = np.empty(len(first.labels))
    for group, layer in enumerate(layers):
        mine = first.groups == group
        logits[mine] = parts[layer].logits[place, mine]
    return ProbeMetrics.of_logits(logits, first.labels, resamples=resamples, seed=seed), layers


def category_facts(metrics: ProbeMetrics, layers: Sequence[int] | None = None) -> dict[str, Any]:
    """The figures as training facts."""
    low, high = metrics.auroc_interval
    facts: dict[str, Any] = {"auroc_held_out_category": metrics.auroc}
    facts |= {"auroc_held_out_category_low": low, "auroc_held_out_category_high": high}
    return facts if layers is None else {**facts, "layers_held_out_category": list(layers)}


def warning(facts: Mapping[str, Any], noun: str = "probe") -> str | None:
    """What speaks against a probe that is good on prompts like those fitted and not on categories held out."""
    within, across = facts.get("auroc"), facts.get("auroc_held_out_category")
    if within is None or across is None or not (within >= HIGH and across < LOW):
        return None
    return (
        f"AUROC {within:.3f} on prompts like those fitted, and {across:.3f} on categories held out: the {noun} tells "
        "these prompts apart, and what it says of others means little"
    )
