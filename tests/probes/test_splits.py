import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.errors import CliffscopeError
from probes.splits import (
    folds_by_prompt,
    prompt_keys,
    split_by_prompt,
    splits_by_category,
)


@st.composite
def rollouts(draw):
    """Labels and prompts; prompts repeat, sometimes in other case and spacing."""
    n = draw(st.integers(12, 60))
    prompts = [f"prompt {draw(st.integers(0, n))}" for _ in range(n)]
    prompts = [f"  {p.upper()} " if draw(st.booleans()) else p for p in prompts]
    keys = prompt_keys(prompts)
    class_of = {key: index % 2 for index, key in enumerate(sorted(set(keys)))}
    return np.array([class_of[key] for key in keys]), prompts


def enough(labels, prompts):
    keys = np.array(prompt_keys(prompts))
    return all(len(set(keys[labels == label])) >= 2 for label in (0, 1))


@given(rollouts(), st.integers(0, 5), st.floats(0.1, 0.6))
@settings(max_examples=60, deadline=None)
def test_a_prompt_never_stands_on_both_sides_and_both_sides_have_both_classes(data, seed, fraction):
    labels, prompts = data
    if not enough(labels, prompts):
        return
    split = split_by_prompt(labels, prompts, fraction, seed)
    keys = np.array(prompt_keys(prompts))
    assert not set(keys[split.train]) & set(keys[split.test])
    assert sorted([*split.train, *split.test]) == list(range(len(labels)))
    assert set(labels[split.train]) == set(labels[split.test]) == {0, 1}


@given(rollouts(), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_the_order_of_rollouts_does_not_change_a_split(data, seed):
    labels, prompts = data
    if not enough(labels, prompts):
        return
    order = np.random.default_rng(seed).permutation(len(labels))
    split = split_by_prompt(labels, prompts, seed=seed)
    moved = split_by_prompt(labels[order], [prompts[i] for i in order], seed=seed)
    assert sorted(order[moved.test]) == sorted(split.test)


def test_a_split_is_stratified_near_the_share_asked_for_and_seeded():
    labels = np.array([1] * 40 + [0] * 160)
    prompts = [f"p{i}" for i in range(200)]
    split = split_by_prompt(labels, prompts, 0.25, seed=1)
    assert labels[split.test].sum() == 10 and len(split.test) == 50
    assert (split.test == split_by_prompt(labels, prompts, 0.25, seed=1).test).all()
    assert (split.test != split_by_prompt(labels, prompts, 0.25, seed=2).test).any()


@given(rollouts(), st.integers(2, 6))
@settings(max_examples=40, deadline=None)
def test_folds_keep_prompts_together_and_hold_both_classes(data, n_folds):
    labels, prompts = data
    if not enough(labels, prompts):
        return
    folds = folds_by_prompt(labels, prompts, n_folds)
    keys = prompt_keys(prompts)
    assert len({(key, fold) for key, fold in zip(keys, folds, strict=True)}) == len(set(keys))
    for fold in range(folds.max() + 1):
        assert set(labels[folds == fold]) == {0, 1}


def test_one_prompt_a_class_cannot_be_split():
    labels, prompts = [0] * 5 + [1] * 5, ["same"] * 5 + [f"p{i}" for i in range(5)]
    with pytest.raises(CliffscopeError, match="class 0 has 1 different prompts"):
        split_by_prompt(labels, prompts)
    with pytest.raises(CliffscopeError, match="class 0 has 1 different prompts"):
        folds_by_prompt(labels, prompts)
    with pytest.raises(CliffscopeError, match="between 0 and 1"):
        split_by_prompt([0, 1] * 5, [f"p{i}" for i in range(10)], 1.5)


def test_shared_categories_are_held_out_with_their_matched_controls():
    labels = np.tile([0, 1], 30)
    categories = [f"c{i // 2 % 5}" for i in range(60)]
    splits = splits_by_category(labels, categories, [f"p{i}" for i in range(60)])
    assert sorted(split.held_out for split in splits) == [(f"c{k}",) for k in range(5)]
    for split in splits:
        assert {categories[i] for i in split.test} == set(split.held_out)
        assert not set(split.held_out) & {categories[i] for i in split.train}
        assert set(labels[split.test]) == {0, 1}


@pytest.mark.parametrize("benign", ["own categories", "none"])
@pytest.mark.parametrize("n_folds", [None, 2, 4])
def test_every_rollout_is_held_out_once_when_classes_share_no_category(benign, n_folds):
    labels = np.repeat([1, 0], 40)
    categories = [f"harm{i % 6}" for i in range(40)]
    categories += [f"benign{i % 4}" if benign == "own categories" else None for i in range(40)]
    splits = splits_by_category(labels, categories, [f"p{i}" for i in range(80)], n_folds)
    assert sorted(index for split in splits for index in split.test) == list(range(80))
    for split in splits:
        held = {categories[i] for i in split.test} - {None}
        assert held == set(split.held_out) and not held & {categories[i] for i in split.train}
        assert set(labels[split.test]) == set(labels[split.train]) == {0, 1}


def test_a_prompt_under_two_categories_is_not_trained_on_while_held_out():
    labels = np.tile([0, 1], 20)
    categories = [f"c{i // 2 % 2}" for i in range(40)]
    prompts = [f"p{i}" for i in range(40)]
    prompts[0] = prompts[2] = "twice"  # one in each category
    for split in splits_by_category(labels, categories, prompts):
        assert not {prompts[i] for i in split.train} & {prompts[i] for i in split.test}


def test_too_few_categories_are_refused():
    labels, prompts = np.tile([0, 1], 10), [f"p{i}" for i in range(20)]
    with pytest.raises(CliffscopeError, match="found 1"):
        splits_by_category(labels, ["only"] * 20, prompts)
    with pytest.raises(CliffscopeError, match="one class only"):
        splits_by_category(labels, ["a" if label else "b" for label in labels], prompts, n_folds=2)
