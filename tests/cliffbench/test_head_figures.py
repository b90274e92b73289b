"""Scores of a ranking against answers made by hand: perfect, reversed, random, tied, unknown."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from cliffbench.scores.heads import head_figures, precision_at
from interventions.heads import Head
from tests.cliffbench.material import HEADS, LAYERS, grid, ranking

PLANTED = (Head(3, 1), Head(4, 5))
RANDOM = np.random.default_rng(0)


def test_the_right_answer_scores_one() -> None:
    assert head_figures(ranking(grid(*PLANTED), PLANTED), PLANTED) == {
        "auroc": 1.0,
        "precision_at_n": 1.0,
        "precision": 1.0,
        "recall": 1.0,
        "named": 2.0,
        "false_discoveries": 0.0,
    }


def test_the_reversed_ranking_scores_zero() -> None:
    wrong = [Head(0, 0), Head(0, 1), Head(0, 2)]
    figures = head_figures(ranking(-grid(*PLANTED), wrong), PLANTED)
    assert figures["auroc"] == figures["precision_at_n"] == figures["precision"] == figures["recall"] == 0.0
    assert figures["false_discoveries"] == 3.0


def test_half_of_it_found_among_others() -> None:
    figures = head_figures(ranking(grid(PLANTED[0]), [PLANTED[0], Head(0, 0), Head(0, 1)]), PLANTED)
    assert figures["precision"] == pytest.approx(1 / 3) and figures["recall"] == 0.5
    # One place is right; the other goes to one of 47 that score alike.
    assert figures["precision_at_n"] == pytest.approx((1 + 1 / 47) / 2)


def test_nothing_named_where_something_was_is_no_precision() -> None:
    figures = head_figures(ranking(grid(*PLANTED)), PLANTED)
    assert (figures["precision"], figures["recall"], figures["auroc"]) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_no_ranking_at_all_is_chance(value: float) -> None:
    figures = head_figures(ranking(np.full((LAYERS, HEADS), value)), PLANTED)
    assert figures["auroc"] == 0.5
    assert figures["precision_at_n"] == pytest.approx(2 / 48)


def test_random_rankings_are_chance_on_average_and_agree_with_scikit_learn() -> None:
    areas, precisions = [], []
    truth = grid(*PLANTED).astype(bool)
    for _ in range(300):
        values = RANDOM.normal(size=(LAYERS, HEADS))
        figures = head_figures(ranking(values), PLANTED)
        assert figures["auroc"] == pytest.approx(roc_auc_score(truth.ravel(), values.ravel()))
        areas.append(figures["auroc"])
        precisions.append(figures["precision_at_n"])
    assert abs(np.mean(areas) - 0.5) < 0.05
    assert abs(np.mean(precisions) - 2 / 48) < 0.03


def test_ties_are_broken_at_random() -> None:
    values, truth = np.array([2.0, 1.0, 1.0, 1.0, 0.0]), np.array([False, True, False, True, False])
    order = np.array([RANDOM.permutation(5) for _ in range(4000)])
    drawn = [truth[sorted(turn, key=lambda place: -values[place])][:2].mean() for turn in order]
    assert precision_at(values, truth) == pytest.approx(np.mean(drawn), abs=0.02)


def test_heads_without_a_score_rank_last() -> None:
    values = grid(*PLANTED)
    values[0] = np.nan
    values[1] = -5.0
    assert head_figures(ranking(values), PLANTED)["auroc"] == 1.0
    values[PLANTED[0]] = np.nan
    assert head_figures(ranking(values), PLANTED)["auroc"] < 0.7
