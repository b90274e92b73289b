"""Whether a mask is live on a model, and does there what it did on the model that it was made for."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import CliffscopeError
from interventions.masks.attached_mask import AttachedMask
from interventions.masks.expected_effect import next_token_log_probs, precision_of
from interventions.masks.fit import check_fit
from interventions.masks.unwrapping import hooked

if TYPE_CHECKING:
    from interventions.masks.head_mask import HeadMask

Verify = Literal["full", "architecture"]

RELATIVE = {"float64": 0.01, "float32": 0.01, "float16": 0.03, "bfloat16": 0.1}
"""How far a reproduced effect may be off, as a share of its size, by the precision in which the model runs."""
ROUNDING = {"float64": 0.001, "float32": 0.001, "float16": 0.02, "bfloat16": 0.1}
"""What rounding alone does to a log-probability, in nats: an effect of that size cannot be reproduced better."""

_ANY_TEXT = tuple(range(16))
"""Token ids to tell on from off by, for a mask that stores no texts."""


@dataclass(frozen=True)
class MaskReport:
    """What a check of a mask on a model found.

    Attributes:
        fits: Whether the mask is for this model.
        live: Whether the model's predictions differ with and without it; `None` if not tried.
        reproduced: Whether they differ as they did where the mask was made; `None` if not asked or nothing is stored.
        deviation: ‖change here − expected change‖ / ‖expected change‖ over the stored log-probabilities: 0 is the same
            effect, 1 what a mask that does nothing would have.
        tolerance: What `deviation` may be. Where it is above 1, rounding hides an effect as small as this one's.
        problems: What is wrong, one line each.
    """

    fits: bool
    live: bool | None = None
    reproduced: bool | None = None
    deviation: float | None = None
    tolerance: float | None = None
    problems: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def require(self) -> None:
        """Raises `CliffscopeError` with the first problem if there is one."""
        if self.problems:
            raise CliffscopeError(self.problems[0])


def check_mask(mask: "HeadMask", model: Any, verify: Verify = "full") -> MaskReport:
    """See `HeadMask.check`."""
    try:
        attached, report = attach_and_prove(mask, model, verify)
    except CliffscopeError as error:
        return MaskReport(fits=False, problems=(str(error),))
    attached.remove()
    return report


def attach_and_prove(mask: "HeadMask", model: Any, verify: Verify) -> tuple[AttachedMask, MaskReport]:
    """Attaches a mask, having measured what it changes; it stays attached.

    Args:
        mask: The mask.
        model: As in `HeadMask.attach`.
        verify: `"full"` also compares weights and effect with those of the model that the mask was made for.

    Raises:
        CliffscopeError: If the mask is for another model; then nothing is attached.
    """
    expected = mask.expected
    texts = [_ANY_TEXT] if expected is None else [sequence.input_ids for sequence in expected.sequences]
    check_fit(mask, hooked(model), weights=verify == "full")
    before = next_token_log_probs(model, texts)
    attached = mask.attach(model, "architecture")
    try:
        after = next_token_log_probs(model, texts)
        attached.require_live("in the check")
    except BaseException:
        attached.remove()
        raise
    live = not all(map(torch.equal, before, after))
    if not live:
        return attached, MaskReport(True, live, problems=("mask: not live: with it the model predicts the same.",))
    if expected is None or verify != "full":
        return attached, MaskReport(True, live)
    change = expected.at_tokens(after) - expected.at_tokens(before)
    return attached, _compare(change, expected.change, {expected.dtype, precision_of(attached)})


def _compare(change: Float[Tensor, "number"], expected: Float[Tensor, "number"], dtypes: set[str]) -> MaskReport:
    """The report on a live mask; the coarsest precision sets the tolerance."""
    deviation = float((change - expected).norm() / expected.norm())
    typical = float(expected.norm()) / len(expected) ** 0.5
    tolerance = max(RELATIVE[dtype] + ROUNDING[dtype] / typical for dtype in dtypes)
    reproduced = deviation <= tolerance
    problem = (
        f"mask: live, but its effect here deviates by {deviation:.3g} from the one stored with it (allowed "
        f"{tolerance:.3g} in {' and '.join(sorted(dtypes))}): other weights, or another mask is attached as well; if "
        'this is the model trained further, say verify="architecture" (--verify architecture).'
    )
    return MaskReport(True, True, reproduced, deviation, tolerance, () if reproduced else (problem,))
