"""The threshold of a guard, from a calibration split: most harmful prompts caught at a promised cost in benign ones.

With n benign calibration scores in ascending order, k = ⌈(n + 1)(1 − α)⌉ and a threshold of at least the k-th of them,
a new benign prompt is flagged with probability at most α, in the mean over draws of the calibration split (split
conformal prediction). This asks only that the new prompt is exchangeable with those of the calibration split: of the
same kind, in the same language, under the same template. It promises nothing on other kinds of benign prompts.

Every threshold from the k-th score up keeps the promise. Among them the one is taken that catches most harmful
calibration prompts, and among equals the middle of the gap that frees most benign ones: where the classes do not
overlap, no benign prompt is given up for nothing.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from interp.errors import CliffscopeError


@dataclass(frozen=True)
class Threshold:
    """Where to flag: above `value`.

    Attributes:
        value: A score.
        false_positives: The promised share α of benign prompts flagged; `None` if nothing is promised.
        n_benign: Benign calibration prompts.
    """

    value: float
    false_positives: float | None
    n_benign: int

    @property
    def promise(self) -> str:
        """What is promised, in one sentence."""
        if self.false_positives is None:
            return "The threshold has the best balanced accuracy on the calibration split and promises nothing."
        return (
            f"At most {self.false_positives:.1%} of benign prompts are flagged in the mean over calibration splits, "
            f"for benign prompts like the {self.n_benign} of this one."
        )


def check_false_positives(share: float | None) -> None:
    """Raises `CliffscopeError` unless this is a share between 0 and 1, or `None`."""
    if share is not None and not 0 < share < 1:
        raise CliffscopeError(f"false positives: expected a share between 0 and 1, found {share:g}.")


def check_calibration(n_harmful: int, n_benign: int, false_positives: float | None, when: str = "") -> None:
    """Raises `CliffscopeError` if a class is missing, or the benign prompts are too few to promise the share.

    Args:
        n_harmful: Calibration prompts.
        n_benign: The same, benign.
        false_positives: The share.
        when: What to say after "calibration", for instance ` without the prompts held out`.
    """
    if not n_harmful or not n_benign:
        raise CliffscopeError(
            f"calibration{when}: {n_harmful} harmful and {n_benign} benign prompts; a threshold needs both: add some."
        )
    if false_positives is not None and _rank(n_benign, false_positives) > n_benign:
        raise CliffscopeError(
            f"calibration{when}: {n_benign} benign prompts cannot promise {false_positives:.1%} false positives, which "
            f"needs {math.ceil(1 / false_positives - 1e-9) - 1}: give more benign prompts, allow more false positives, "
            "or promise nothing (balanced)."
        )


def choose_threshold(
    harmful: Float[np.ndarray, " harmful"], benign: Float[np.ndarray, " benign"], false_positives: float | None
) -> Threshold:
    """The threshold for calibration scores of the two classes.

    Args:
        harmful: Scores of harmful prompts that the guard was not fitted on.
        benign: The same of benign prompts.
        false_positives: The share of benign prompts that may be flagged; `None` for the best balanced accuracy.

    Raises:
        CliffscopeError: If the share is none, a class is missing, or there are too few benign prompts to promise it.
    """
    check_false_positives(false_positives)
    check_calibration(len(harmful), len(benign), false_positives)
    if false_positives is None:
        return Threshold(_balanced(harmful, benign), None, len(benign))
    least = float(np.sort(benign)[_rank(len(benign), false_positives) - 1])
    caught = harmful[harmful > least]
    if not len(caught):
        return Threshold(least, false_positives, len(benign))
    first = float(caught.min())
    below = float(benign[benign < first].max())  # `least` is one of them
    return Threshold(_middle(below, first), false_positives, len(benign))


def _rank(n_benign: int, false_positives: float) -> int:
    # 1e-9: (n + 1)(1 − α) may come out just above a whole number.
    return math.ceil((n_benign + 1) * (1 - false_positives) - 1e-9)


def _balanced(harmful: np.ndarray, benign: np.ndarray) -> float:
    """The cut with the best balanced accuracy: the middle of the widest gap between scores that reaches it."""
    scores = np.unique(np.concatenate([harmful, benign]))
    # Cut c lies above scores[c - 1] and below scores[c]; cut 0 flags all.
    caught = 1 - np.searchsorted(np.sort(harmful), scores, side="right") / len(harmful)
    freed = np.searchsorted(np.sort(benign), scores, side="right") / len(benign)
    quality = caught + freed
    best = np.flatnonzero(quality >= quality.max() - 1e-12)
    upper = np.append(scores[1:], scores[-1])
    place = int(best[np.argmax((upper - scores)[best])])
    return _middle(float(scores[place]), float(upper[place]))


def _middle(low: float, high: float) -> float:
    """A number from `low` up and, if there is one, below `high`: what scores `high` is flagged."""
    middle = low + (high - low) / 2
    return middle if middle < high else low
