"""Checks of what a probe is fitted on: each bad input gets one line that names it and says what to do."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from interp.errors import CliffscopeError

MIN_ROLLOUTS = 8
"""Fewer rollouts than this determine neither a probe nor its held-out figures."""


def check_labels(labels: ArrayLike | Tensor, n: int) -> NDArray[np.int64]:
    """The labels as int64 0 and 1.

    Args:
        labels: `[n]` of 0 and 1 or booleans.
        n: The number of rollouts that they must label.

    Raises:
        CliffscopeError: If there are not `n` labels of 0 and 1, fewer than 8 rollouts, or one class only.
    """
    values = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels)
    if values.shape != (n,):
        raise CliffscopeError(f"labels: expected {n}, one a rollout, found shape {list(values.shape)}.")
    if not np.isin(values, (0, 1)).all():
        raise CliffscopeError("labels: expected only 0 and 1 (or False and True).")
    if n < MIN_ROLLOUTS:
        raise CliffscopeError(f"labels: a probe needs at least {MIN_ROLLOUTS} rollouts, found {n}; add more.")
    values = values.astype(np.int64)
    if values.min() == values.max():
        missing = "refused harmful (class 1)" if values[0] == 0 else "answered benign (class 0)"
        raise CliffscopeError(
            f"labels: all {n} rollouts are of class {values[0]}; a probe needs both: add {missing} rollouts."
        )
    return values


def check_activations(
    activations: Float[Tensor, "rollout ..."],
    ids: Sequence[str] | None = None,
    positions: Sequence[str] | None = None,
) -> None:
    """Refuses activations with NaN or infinity.

    Args:
        activations: `[rollout, d_model]` or `[rollout, position, d_model]`.
        ids: The rollouts' names for the message; their indices if `None`.
        positions: The positions' names for the message; their indices if `None`.

    Raises:
        CliffscopeError: If a value is NaN or infinite: how many, and the first rollout and position.
    """
    # One sum finds out whether anything is wrong; the slow look is taken only then.
    if bool(torch.isfinite(activations.sum(dtype=torch.float32))):
        return
    finite = torch.isfinite(activations)
    broken = int((~finite).sum())
    if not broken:  # the sum alone overflowed
        return
    first = (~finite).nonzero()[0].tolist()
    where = f"rollout {ids[first[0]] if ids else first[0]}"
    if activations.ndim > 2:
        where += f", position {positions[first[1]] if positions else first[1]}"
    raise CliffscopeError(
        f"activations: {broken} NaN or infinite value{'s' * (broken != 1)}, the first in {where}; "
        "load the model in float32 or bfloat16, or leave the rollout out."
    )
