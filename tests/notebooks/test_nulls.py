"""The notebook on controls and null models."""

from pathlib import Path

import pytest

from tests.notebooks.running import check


@pytest.mark.slow
def test_is_it_real(tmp_path: Path) -> None:
    claims = """
assert cliff.verdict == "cliff" and cliff.shuffled[0].stands and directions.stands
# Too few runs to tell, and the sentence says so.
assert not weights.shown and not weights.stands and "So few runs" in weights.sentence
assert measure_cliff(aligned, aligned_probe, refusing).verdict == "no cliff"
# The confound's curve falls although nothing was answered.
assert shifted.verdict == "no cliff" and shifted.of("refused", "cliff").mean() > 0.2
assert all(rollout.outcome != "complied" for rollout in answers)
assert list(map(str, sorted(scores.suppressors))) == ["3.1", "4.5"]
assert not found.suppressors and "Nothing to explain" in found.evidence
"""
    check(7, tmp_path, claims)
