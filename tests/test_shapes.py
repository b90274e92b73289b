"""The run-time checks of signatures are on in the tests: of types, and of shapes."""

import pytest
import torch
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import TypeCheckError

from interp.statistics import proportion_interval
from probes.linear import LinearProbe


def test_types_are_checked() -> None:
    with pytest.raises(BeartypeCallHintViolation, match="proportion_interval"):
        proportion_interval("3", 4)  # type: ignore[arg-type]


def test_shapes_are_checked() -> None:
    with pytest.raises(TypeCheckError, match="weight"):
        LinearProbe(torch.ones(2, 3), 0.0)
    with pytest.raises(TypeCheckError, match="logit"):
        LinearProbe(torch.ones(3), 0.0).logit(3)  # type: ignore[arg-type]
