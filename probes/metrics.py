"""How good a fitted probe is on held-out rollouts: AUROC, accuracy, calibration, each with its interval.

Intervals are percentile bootstraps over rollouts, stratified by class. Where all resamples agree (perfect
separation) AUROC and accuracy fall back on closed-form intervals, see `interp.statistics`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from interp.errors import CliffscopeError
from interp.statistics import (
    Array,
    Interval,
    accuracy,
    auroc,
    bootstrap_auroc,
    bootstrap_counts,
    expected_calibration_error,
    interval_of_resampled_auroc,
    percentile_bounds,
    proportion_interval,
)
from probes.linear import LinearProbe

MEASURES = ("auroc", "accuracy", "ece")


@dataclass(frozen=True)
class ProbeMetrics:
    """Figures of one probe on one test set; intervals are 95 %.

    Attributes:
        auroc: Ranking; NaN if the test set has one class.
        auroc_interval: Undefined, with the reason, for fewer than two rollouts of a class.
        accuracy: At score 0.5.
        accuracy_interval: See above.
        ece: Expected calibration error over 10 bins of equal width.
        ece_interval: See above; like the figure itself biased upwards in small test sets.
        n: Rollouts in the test set.
        n_positive: Those of class 1.
    """

    auroc: float
    auroc_interval: Interval
    accuracy: float
    accuracy_interval: Interval
    ece: float
    ece_interval: Interval
    n: int
    n_positive: int

    @classmethod
    def of(
        cls,
        probe: LinearProbe,
        activations: Float[Tensor, "n d_model"],
        labels: ArrayLike | Tensor,
        *,
        resamples: int = 1000,
        seed: int = 0,
    ) -> "ProbeMetrics":
        """Judges a probe on rollouts that it was not fitted on."""
        return cls.of_logits(probe.logit(activations).cpu().numpy(), labels, resamples=resamples, seed=seed)

    @classmethod
    def of_logits(
        cls, logits: ArrayLike, labels: ArrayLike | Tensor, *, resamples: int = 1000, seed: int = 0
    ) -> "ProbeMetrics":
        """Judges logits `[n]` against labels `[n]` of 0 and 1."""
        y = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels).astype(np.int64)
        values = np.asarray(logits, dtype=np.float64)
        if values.ndim != 1 or values.shape != y.shape:
            raise CliffscopeError(
                f"metrics: expected one logit and one label a rollout, found {values.shape}, {y.shape}."
            )
        counts = bootstrap_counts(len(y), resamples, seed, y)
        return Resampled.of(values[None], y, counts).metrics()[0]

    def as_row(self) -> dict[str, float]:
        """The figures with `_low` and `_high`, as columns of a table."""
        row: dict[str, float] = {}
        for name in MEASURES:
            interval: Interval = getattr(self, f"{name}_interval")
            row |= {name: getattr(self, name), f"{name}_low": interval.low, f"{name}_high": interval.high}
        return row


@dataclass(frozen=True)
class Resampled:
    """The figures of many cells on one test set, and in each bootstrap resample.

    Attributes:
        point: For each of `MEASURES`, `[cell]`.
        samples: For each of `MEASURES`, `[cell, resample]`.
        labels: `[n]`.
    """

    point: dict[str, Array]
    samples: dict[str, Array]
    labels: NDArray[np.int64]

    @classmethod
    def of(cls, logits: Array, labels: NDArray[np.int64], counts: Array) -> "Resampled":
        """Measures logits `[cell, n]` against labels `[n]` in resamples given by counts `[resample, n]`."""
        scores = torch.as_tensor(logits).double().sigmoid().numpy()
        right = ((scores >= 0.5) == (labels == 1)).astype(np.float64)
        total = counts.sum(-1)
        point = {
            "auroc": auroc(logits, labels),
            "accuracy": accuracy(scores, labels),
            "ece": expected_calibration_error(scores, labels),
        }
        samples = {
            "auroc": bootstrap_auroc(logits, labels, counts),
            "accuracy": right @ counts.T / total,
            "ece": expected_calibration_error(scores, labels, counts=counts),
        }
        return cls(point, samples, labels)

    @classmethod
    def mean(cls, parts: Sequence["Resampled"]) -> "Resampled":
        """The means over several labellings (shuffles) of the same rollouts."""
        return cls(
            {name: np.mean([part.point[name] for part in parts], axis=0) for name in MEASURES},
            {name: np.mean([part.samples[name] for part in parts], axis=0) for name in MEASURES},
            parts[0].labels,
        )

    def metrics(self) -> list[ProbeMetrics]:
        """One `ProbeMetrics` a cell."""
        n, n_positive = len(self.labels), int(self.labels.sum())
        result = []
        for cell in range(len(self.point["auroc"])):
            point = {name: float(self.point[name][cell]) for name in MEASURES}
            result.append(
                ProbeMetrics(
                    auroc=point["auroc"],
                    auroc_interval=interval_of_resampled_auroc(
                        point["auroc"], self.samples["auroc"][cell], self.labels
                    ),
                    accuracy=point["accuracy"],
                    accuracy_interval=self._accuracy_interval(cell, point["accuracy"]),
                    ece=point["ece"],
                    ece_interval=_percentiles(self.samples["ece"][cell], n),
                    n=n,
                    n_positive=n_positive,
                )
            )
        return result

    def _accuracy_interval(self, cell: int, share: float) -> Interval:
        n = len(self.labels)
        # The same bootstrap says when there is none; as an interval, percentiles of a proportion are too short.
        interval = _percentiles(self.samples["accuracy"][cell], n)
        return interval if interval.reason else proportion_interval(round(share * n), n)


def _percentiles(samples: Array, n: int) -> Interval:
    if n < 2 or np.isnan(samples).any():
        return Interval.undefined(f"{n} rollout{'s' * (n != 1)}" if n < 2 else "some scores are NaN")
    low, high = percentile_bounds(samples)
    return Interval(float(low), float(high))
