"""Held-out categories with the layer chosen inside the fold, against the same search made by hand, group by group."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from interp.statistics import auroc
from probes.category_search import category_facts, chosen_layers, deepest_as_good, warning
from probes.fitting import N_FOLDS, fit_logistic
from probes.layer_sweep import LayerSweep
from probes.splits import folds_by_prompt
from probes.sweep import ProbeSweep, SweepOptions, SweepPlan

N, D, EDGE = 96, 12, "close:-1"
LABELS = np.tile([0, 1], N // 2)
PROMPTS = [f"prompt {i}" for i in range(N)]
CATEGORIES = [f"kind {i // 2 % 4}" for i in range(N)]
OPTIONS = SweepOptions(n_shuffles=0, resamples=100)


def layer(gap: float, seed: int, only: int | None = None) -> torch.Tensor:
    """`[rollout, 1, d]` with the classes apart in all categories, or in one alone."""
    block = torch.randn(N, 1, D, generator=torch.Generator().manual_seed(seed))
    sign = torch.as_tensor(2.0 * LABELS - 1)
    mine = torch.tensor([only is None or name == f"kind {only}" for name in CATEGORIES])
    block[:, 0, 0] += torch.where(mine, gap / 2 * sign, torch.zeros(()))
    return block


BLOCKS = [layer(1.2, 0), layer(2.0, 1), layer(1.6, 2)]


@pytest.fixture(scope="module")
def plan() -> SweepPlan:
    return SweepPlan.make(LABELS, PROMPTS, [EDGE], CATEGORIES, options=OPTIONS)


@pytest.fixture(scope="module")
def sweep(plan: SweepPlan) -> ProbeSweep:
    return ProbeSweep.run(plan, enumerate(BLOCKS))


def test_every_group_is_judged_by_a_search_that_did_not_see_it(plan: SweepPlan, sweep: ProbeSweep) -> None:
    """By hand: a whole search on the other categories alone, then its layer's probe of all of them on the group."""
    pooled, layers = np.empty(N), []
    for held in plan.categories:
        rows = held.split.train
        names = [PROMPTS[i] for i in rows]
        alone = SweepPlan.make(LABELS[rows], names, [EDGE], options=SweepOptions(n_shuffles=0, resamples=100))
        search = ProbeSweep.run(alone, ((n, block[rows]) for n, block in enumerate(BLOCKS)))
        layers.append(search.choose_layer(EDGE))
        block = BLOCKS[layers[-1]][:, 0]
        folds = folds_by_prompt(LABELS[rows], names, N_FOLDS, 0)
        fits = fit_logistic(block[rows][None], torch.as_tensor(LABELS[rows][:, None]), folds=folds)
        pooled[held.split.test] = block[held.split.test].double() @ fits.weight[0, 0] + float(fits.bias[0, 0])
    judged = sweep.held_out_categories(EDGE, OPTIONS)
    assert judged is not None and judged[1] == layers
    assert judged[0].auroc == pytest.approx(float(auroc(pooled, LABELS)), abs=1e-6)
    assert judged[0].auroc_interval.low < judged[0].auroc < judged[0].auroc_interval.high


def test_a_layer_that_only_the_held_out_category_recommends_is_not_chosen(plan: SweepPlan) -> None:
    """Layer 1 separates one category perfectly and no other; without that category nothing speaks for it."""
    for kind in range(4):
        found = ProbeSweep.run(plan, enumerate([layer(5.0, 0), layer(9.0, 1, only=kind)]))
        judged = found.held_out_categories(EDGE, OPTIONS)
        assert judged is not None
        group = next(n for n, held in enumerate(plan.categories) if f"kind {kind}" in held.split.held_out)
        assert judged[1][group] == 0


def test_one_layer_is_the_control_of_its_own_table(plan: SweepPlan) -> None:
    found = ProbeSweep.run(plan, [(3, BLOCKS[1])])
    judged = found.held_out_categories(EDGE, OPTIONS)
    control = found.table[found.table["control"] == "held_out_category"].iloc[0]
    assert judged is not None and judged[1] == [3] * len(plan.categories)
    assert judged[0].auroc == control["auroc"]
    facts = category_facts(*judged)
    assert facts["auroc_held_out_category_low"] == control["auroc_low"]


def test_without_categories_there_is_none() -> None:
    plan = SweepPlan.make(LABELS, PROMPTS, [EDGE], options=OPTIONS)
    assert plan.no_categories == "the rollouts have no categories"
    assert ProbeSweep.run(plan, [(0, BLOCKS[0])]).held_out_categories(EDGE, OPTIONS) is None


def test_a_killed_sweep_keeps_it(plan: SweepPlan, sweep: ProbeSweep, tmp_path: Path) -> None:
    parts = []
    for number, part in sweep.layers.items():
        part.save(tmp_path / f"{number}.parquet")
        parts.append(LayerSweep.load(tmp_path / f"{number}.parquet", plan.digest))
    first, again = (made.held_out_categories(EDGE, OPTIONS) for made in (sweep, ProbeSweep.merge(parts)))
    assert first is not None and again is not None
    assert first[0] == again[0] and first[1] == again[1]


@pytest.mark.parametrize(
    ("areas", "lows", "chosen"),
    [
        ([0.9, 1.0, 0.95], [0.8, 0.93, 0.9], 2),
        ([0.9, 1.0, 0.92], [0.8, 0.93, 0.9], 1),
        ([1.0, 1.0, 0.5], [0.9, 0.9, 0.3], 1),
        ([0.9, 1.0, 0.99], [0.8, math.nan, 0.9], 1),
        ([0.9, math.nan, math.nan], [0.8, math.nan, math.nan], 0),
        ([math.nan] * 3, [math.nan] * 3, None),
    ],
)
def test_the_deepest_layer_that_is_as_good(areas: list[float], lows: list[float], chosen: int | None) -> None:
    assert deepest_as_good([0, 1, 2], areas, lows) == chosen


def test_a_group_without_an_inner_figure_leaves_none(sweep: ProbeSweep) -> None:
    parts = {n: part.search for n, part in sweep.layers.items() if part.search is not None}
    for part in parts.values():
        part.auroc[0, 1] = math.nan
    assert chosen_layers(parts, 0) is None


@pytest.mark.parametrize(
    ("within", "across", "warns"), [(0.99, 0.6, True), (0.99, 0.9, False), (0.7, 0.5, False), (0.99, None, False)]
)
def test_a_probe_of_its_own_prompts_is_warned_of(within: float, across: float | None, warns: bool) -> None:
    said = warning({"auroc": within, "auroc_held_out_category": across})
    assert (said is not None) == warns
    if said is not None:
        assert "0.990 on prompts like those fitted, and 0.600 on categories held out" in said
