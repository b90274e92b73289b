"""Splits that keep a prompt on one side: by prompt, into folds, and by category.

The same prompt text (up to case and spacing) never stands on both sides, however many rollouts it has. A split
depends on the texts and the seed, not on the order of the rollouts.

The split by category holds out whole categories, and with each the benign controls that share its name
(arXiv 2603.18280: a probe of anything, even of an innocuous topic, is perfect within its own distribution; only
unseen categories with their matched controls tell). Rollouts without a category are dealt out by prompt.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interp.errors import CliffscopeError
from probes.inputs import check_labels

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Indices of the training and of the held-out rollouts, ascending.

    Attributes:
        train: Rollouts to fit on.
        test: Rollouts to judge by.
        held_out: The categories held out; empty for a split by prompt.
    """

    train: Indices
    test: Indices
    held_out: tuple[str, ...] = ()


def prompt_keys(prompts: Sequence[str]) -> list[str]:
    """The texts without case and spacing, by which two prompts count as the same."""
    return [" ".join(prompt.split()).casefold() for prompt in prompts]


def split_by_prompt(labels: ArrayLike, prompts: Sequence[str], test_fraction: float = 0.3, seed: int = 0) -> Split:
    """Holds out about `test_fraction` of the rollouts of each class, whole prompts at a time.

    Args:
        labels: `[n]` of 0 and 1.
        prompts: `[n]` texts.
        test_fraction: In (0, 1).
        seed: Of the draw.

    Raises:
        CliffscopeError: If a class has fewer than two different prompts, or the labels are unusable.
    """
    if not 0 < test_fraction < 1:
        raise CliffscopeError(f"test_fraction: expected a share between 0 and 1, found {test_fraction}.")
    y = check_labels(labels, len(prompts))
    groups = _groups(prompts, seed)
    test: list[int] = []
    for label in (0, 1):
        mine = [group for group in groups if _majority(y[group]) == label]
        _require_prompts(mine, label)
        wanted = test_fraction * sum(len(group) for group in mine)
        taken, size = [mine[0]], len(mine[0])
        for group in mine[1:-1]:  # at least one prompt of the class stays on each side
            if size + len(group) / 2 <= wanted:
                taken.append(group)
                size += len(group)
        test += [index for group in taken for index in group]
    return _split(test, len(y))


def folds_by_prompt(labels: ArrayLike, prompts: Sequence[str], n_folds: int = 5, seed: int = 0) -> Indices:
    """The fold `[n]` of each rollout for cross-validation: stratified, a prompt within one fold.

    There are fewer than `n_folds` folds if a class has fewer different prompts.

    Raises:
        CliffscopeError: If a class has fewer than two different prompts, or the labels are unusable.
    """
    y = check_labels(labels, len(prompts))
    groups = _groups(prompts, seed)
    for label in (0, 1):
        mine = [group for group in groups if _majority(y[group]) == label]
        _require_prompts(mine, label)
        n_folds = min(n_folds, len(mine))
    return _deal(groups, y, n_folds)


def permuted_within(folds: Indices, labels: Indices, rng: np.random.Generator) -> Indices:
    """Labels permuted within each fold: every fold keeps its class counts, so that it can be fitted."""
    result = labels.copy()
    for fold in np.unique(folds):
        members = np.flatnonzero(folds == fold)
        result[members] = rng.permutation(labels[members])
    return result


def splits_by_category(
    labels: ArrayLike,
    categories: Sequence[str | None],
    prompts: Sequence[str],
    n_folds: int | None = None,
    seed: int = 0,
) -> list[Split]:
    """Splits in which every rollout is held out once, together with all rollouts of its category.

    Args:
        labels: `[n]` of 0 and 1.
        categories: `[n]`; `None` where a rollout has none.
        prompts: `[n]` texts; a prompt that is held out under one category is not trained on under another.
        n_folds: Number of splits; `None` leaves one category out at a time (of the class with the fewest,
            the other class' categories being dealt out to match).
        seed: Of the dealing.

    Raises:
        CliffscopeError: If there are fewer than two categories, or some split would lack a class.
    """
    y = check_labels(labels, len(prompts))
    names = sorted({name for name in categories if name is not None})
    if len(names) < 2:
        raise CliffscopeError(
            f"categories: found {len(names)}; holding categories out needs at least 2 (give rollouts a category)."
        )
    keys = prompt_keys(prompts)
    blocks: dict[tuple[str, str], list[int]] = {}
    for index, (name, key) in enumerate(zip(categories, keys, strict=True)):
        blocks.setdefault(("category", name) if name is not None else ("prompt", key), []).append(index)
    order = sorted(blocks)
    np.random.default_rng(seed).shuffle(order)
    groups = [blocks[key] for key in order]
    per_class = [sum(1 for group in groups if (y[group] == label).any()) for label in (0, 1)]
    limit = min(min(per_class), len(names))
    folds = _deal(groups, y, limit if n_folds is None else min(n_folds, limit))
    splits = []
    for fold in range(folds.max() + 1):
        test = np.flatnonzero(folds == fold)
        held = {keys[index] for index in test}
        train = np.array([i for i in np.flatnonzero(folds != fold) if keys[i] not in held], dtype=np.int64)
        for side, part in (("training", train), ("held-out", test)):
            if len(np.unique(y[part])) < 2:
                raise CliffscopeError(
                    f"categories: split {fold + 1} of {limit} has one class only on the {side} side; "
                    "use fewer folds, or categories that both classes share."
                )
        names_held = sorted({name for i in test.tolist() if (name := categories[i]) is not None})
        splits.append(Split(train, test, tuple(names_held)))
    return splits


def _groups(prompts: Sequence[str], seed: int) -> list[list[int]]:
    """The rollouts of each prompt, in an order that depends on the texts and the seed alone."""
    members: dict[str, list[int]] = {}
    for index, key in enumerate(prompt_keys(prompts)):
        members.setdefault(key, []).append(index)
    order = sorted(members)
    np.random.default_rng(seed).shuffle(order)
    return [members[key] for key in order]


def _majority(labels: Indices) -> int:
    return int(2 * labels.sum() >= len(labels))


def _deal(groups: list[list[int]], y: Indices, n_folds: int) -> Indices:
    """Deals groups to folds, large ones first, each to the fold with the least of what the group brings."""
    folds = np.zeros(len(y), dtype=np.int64)
    held = np.zeros((n_folds, 2))
    for group in sorted(groups, key=len, reverse=True):  # stable: equal sizes keep the seeded order
        brings = np.bincount(y[group], minlength=2)
        fold = min(range(n_folds), key=lambda k: (held[k] @ brings, held[k].sum(), k))
        folds[group] = fold
        held[fold] += brings
    return folds


def _require_prompts(groups: list[list[int]], label: int) -> None:
    if len(groups) < 2:
        raise CliffscopeError(
            f"prompts: class {label} has {len(groups)} different prompts; a split by prompt needs at least 2: add "
            f"{'refused harmful' if label else 'answered benign'} rollouts."
        )


def _split(test: list[int], n: int) -> Split:
    held = np.zeros(n, dtype=bool)
    held[test] = True
    return Split(np.flatnonzero(~held), np.flatnonzero(held))
