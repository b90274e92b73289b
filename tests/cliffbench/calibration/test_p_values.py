"""p-values keep their level where nothing is true; a p that takes what hangs together as independent is caught."""

import numpy as np
import pytest

from cliffbench.calibration.p_values import latents, p_values, sign_flips
from cliffbench.calibration.results import MOST_CLAIMS, MOST_P
from interp.significance import sign_flip_p

RUNS = 400


def allowed(most: float, runs: int) -> float:
    """A rate that true ones at the limit exceed once in 30,000 times."""
    return float(most + 4 * np.sqrt(most * (1 - most) / runs))


def rollouts_as_independent(values: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    return np.asarray(sign_flip_p(values, flips=1999))


@pytest.mark.slow
def test_the_p_values_keep_their_level() -> None:
    rows = list(p_values(RUNS))
    assert {row.statistic.split(":")[0] for row in rows if row.kind == "p"} >= {
        "sign flip",
        "McNemar, exact",
        "latents",
    }
    for row in rows:
        # Columns of one draw of prompts do not hang together, but the tests of one run of latents do.
        assert row.rate <= allowed(MOST_P if row.kind == "p" else MOST_CLAIMS, row.runs), row
    assert any(row.rate > 0.03 for row in rows)  # a test that never rejects would keep its level too


@pytest.mark.slow
def test_a_p_that_takes_rollouts_of_a_prompt_as_independent_is_caught() -> None:
    broken = [row for row in sign_flips(4 * RUNS, test=rollouts_as_independent) if row.kind == "p"]
    assert len(broken) == 9 and all(row.rate > MOST_P for row in broken)
    assert sum(row.clearly_outside for row in broken) >= 7


@pytest.mark.slow
def test_a_screening_without_correction_is_caught() -> None:
    """What q is for: a p of a twentieth named among 48 heads is a false claim in nearly every run."""

    def hurried(values: np.ndarray, clusters: np.ndarray) -> np.ndarray:
        p = sign_flip_p(values, clusters=clusters, flips=1999)
        # Undoes the correction that follows.
        return np.asarray(p / p.size)

    claims = [row for row in sign_flips(100, test=hurried) if row.kind == "claims"]
    assert claims[0].rate > 0.5 and claims[0].clearly_outside


def test_latents_that_tell_nothing_are_not_named() -> None:
    p, named = latents(20)
    assert 0.01 < p.rate <= MOST_P and named.rate <= allowed(MOST_CLAIMS, 20)
    assert p == next(latents(20)) and p != next(latents(20, seed=1))
