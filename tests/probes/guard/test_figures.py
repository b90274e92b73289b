"""Figures of a guard against counting by hand, scikit-learn and statsmodels' formula."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from interp.rollouts.prompts import Prompt
from probes.guard import GuardFigures, confounded


def made(n: int = 90, seed: int = 0) -> tuple[list[Prompt], np.ndarray]:
    rng = np.random.default_rng(seed)
    kinds = [(True, "theft"), (True, "fraud"), (False, "cooking"), (False, None), (None, None)]
    prompts, scores = [], []
    for number in range(n):
        harmful, category = kinds[number % 5]
        prompts.append(Prompt(str(number), f"text {number}", harmful, category, "one"))
        scores.append(rng.normal(1.0 if harmful else 0.0))
    return prompts, np.array(scores)


def test_against_counting_and_sklearn() -> None:
    prompts, scores = made()
    flagged = scores > 0.5
    figures = GuardFigures.of(prompts, scores, flagged)
    known = [row for row, prompt in enumerate(prompts) if prompt.harmful is not None]
    assert figures.auroc == pytest.approx(roc_auc_score([prompts[r].harmful for r in known], scores[known]))
    assert figures.auroc_interval.low < figures.auroc < figures.auroc_interval.high
    assert list(figures.table["category"]) == ["fraud", "theft", "cooking", "–"]
    for row in figures.table.to_dict("records"):
        mine = [r for r in known if (prompts[r].category or "–") == row["category"]]
        wrong = sum(flagged[r] != prompts[r].harmful for r in mine)
        assert (row["n"], row["wrong"]) == (len(mine), wrong) and row["rate"] == wrong / len(mine)
        assert row["low"] <= row["rate"] <= row["high"]
    harmful = [r for r in known if prompts[r].harmful]
    assert figures.missed == np.mean([not flagged[r] for r in harmful])
    assert figures.flagged_benign == np.mean([flagged[r] for r in known if not prompts[r].harmful])


def test_one_class_gives_its_rate_and_says_why_there_is_no_auroc() -> None:
    prompts, scores = made()
    harmful = [row for row, prompt in enumerate(prompts) if prompt.harmful]
    figures = GuardFigures.of([prompts[row] for row in harmful], scores[harmful], scores[harmful] > 0)
    assert np.isnan(figures.auroc) and "0 of class 0" in str(figures.auroc_interval)
    assert 0 < figures.missed < 1 and np.isnan(figures.flagged_benign)


def test_sources_that_no_class_shares_are_told() -> None:
    harmful = [Prompt(str(i), "a", True, source="bad.csv") for i in range(3)]
    other = [Prompt(str(i), "b", False, source="good.csv") for i in range(3, 6)]
    warning = confounded([*harmful, *other])
    assert warning is not None and "bad.csv" in warning and "good.csv" in warning and "matched pairs" in warning
    assert confounded([*harmful, *other, Prompt("9", "c", False, source="bad.csv")]) is None
    assert confounded([Prompt("1", "a", True), *other]) is None
