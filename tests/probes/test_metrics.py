import math

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, roc_auc_score

from interp.errors import CliffscopeError
from probes.linear import LinearProbe
from probes.metrics import ProbeMetrics
from tests.probes.planted_activations import planted


def test_figures_of_a_probe_agree_with_scikit_learn_and_lie_in_their_intervals():
    activations, labels, _ = planted(300, 10, gap=2.0)
    probe = LinearProbe.fit(activations[:150], labels[:150])
    metrics = ProbeMetrics.of(probe, activations[150:], labels[150:])
    scores, truth = probe.score(activations[150:]).numpy(), labels[150:].numpy()
    assert metrics.auroc == pytest.approx(roc_auc_score(truth, scores))
    assert metrics.accuracy == pytest.approx(accuracy_score(truth, scores > 0.5))
    assert metrics.auroc in metrics.auroc_interval and 0.02 < metrics.auroc_interval.width < 0.2
    assert metrics.accuracy in metrics.accuracy_interval and 0.02 < metrics.accuracy_interval.width < 0.2
    assert 0 <= metrics.ece <= 0.2 and metrics.ece_interval.width > 0
    assert (metrics.n, metrics.n_positive) == (150, int(truth.sum()))
    row = metrics.as_row()
    assert row["auroc_low"] == metrics.auroc_interval.low and set(row) >= {"ece", "accuracy_high"}


def test_perfect_separation_keeps_an_open_interval():
    metrics = ProbeMetrics.of_logits([-2.0, -1.5] * 10 + [1.5, 2.0] * 10, [0] * 20 + [1] * 20)
    assert metrics.auroc == metrics.accuracy == 1.0
    assert 0.8 < metrics.auroc_interval.low < 1.0 and metrics.auroc_interval.high == 1.0
    assert 0.8 < metrics.accuracy_interval.low < 1.0


def test_figures_that_cannot_be_had_are_nan_with_the_reason():
    one_class = ProbeMetrics.of_logits([0.1, -0.2, 0.3], [1, 1, 1])
    assert math.isnan(one_class.auroc) and "0 of class 0" in str(one_class.auroc_interval.reason)
    assert one_class.accuracy == pytest.approx(2 / 3) and not math.isnan(one_class.accuracy_interval.low)
    alone = ProbeMetrics.of_logits([0.1], [1])
    assert alone.ece_interval.reason == "1 rollout" and math.isnan(alone.ece_interval.low)
    assert math.isnan(alone.accuracy_interval.high)


def test_intervals_repeat_with_the_seed_and_ignore_the_scale_of_the_logits():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=60), rng.integers(0, 2, 60)
    first = ProbeMetrics.of_logits(logits, labels, seed=1)
    assert first == ProbeMetrics.of_logits(torch.as_tensor(logits).numpy(), torch.as_tensor(labels), seed=1)
    assert first.auroc_interval == ProbeMetrics.of_logits(logits * 7, labels, seed=1).auroc_interval
    assert first.auroc_interval != ProbeMetrics.of_logits(logits, labels, seed=2).auroc_interval


def test_logits_and_labels_must_match():
    with pytest.raises(CliffscopeError, match="one logit and one label"):
        ProbeMetrics.of_logits([0.1, 0.2], [1])
