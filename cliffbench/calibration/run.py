"""The whole calibration: intervals, p-values, and nulls on organisms, as one table."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from cliffbench.calibration.coverage import Options as CoverageOptions
from cliffbench.calibration.coverage import coverage
from cliffbench.calibration.nulls import QUICK as QUICK_NULLS
from cliffbench.calibration.nulls import Sizes, n_steps, nulls
from cliffbench.calibration.p_values import p_values
from cliffbench.calibration.results import Row, outside


@dataclass(frozen=True)
class CalibrationOptions:
    """How much is run.

    Attributes:
        coverage: Of the simulations of intervals.
        tests: Runs of each p-value on drawn values.
        nulls: Of the nulls on organisms.
        seed: Of everything.
    """

    coverage: CoverageOptions = field(default_factory=CoverageOptions)
    tests: int = 8000
    nulls: Sizes = field(default_factory=Sizes)
    seed: int = 0

    @classmethod
    def quick(cls, seed: int = 0) -> "CalibrationOptions":
        """Few runs: shows gross faults; a rate may miss its range by chance."""
        return cls(CoverageOptions(200, seed=seed), 200, QUICK_NULLS, seed)

    @classmethod
    def full(cls, seed: int = 0) -> "CalibrationOptions":
        """What docs/calibration.md shows."""
        return cls(CoverageOptions(seed=seed), seed=seed)

    @property
    def n_steps(self) -> int:
        """How often `calibrate` advances."""
        return 2 + n_steps(self.nulls)


@dataclass(frozen=True)
class Calibration:
    """What was found.

    Attributes:
        rows: The figures.
        seconds: Processor time.
        seed: Of everything.
    """

    rows: tuple[Row, ...]
    seconds: float
    seed: int

    @property
    def outside(self) -> list[Row]:
        """The figures that miss the range asked for."""
        return outside(self.rows)

    @property
    def evidence(self) -> str:
        """What came out, in a sentence or two."""
        asked = [row for row in self.rows if not row.note]
        missed = self.outside
        if not missed:
            return f"All {len(asked)} figures lie in their range."
        worst = "; ".join(f"{row.statistic}, {row.setting}, n = {row.n}: {row.rate:.3f}" for row in missed)
        return f"{len(asked) - len(missed)} of {len(asked)} figures lie in their range. Outside: {worst}."


def calibrate(
    options: CalibrationOptions | None = None, advance: Callable[[int], object] = lambda amount: None
) -> Calibration:
    """Runs everything.

    Args:
        options: How much.
        advance: Told how many steps more are done; `CalibrationOptions.n_steps` tells how many there are.
    """
    options = options or CalibrationOptions.full()
    start = time.process_time()
    rows = tuple(_rows(options, advance))
    return Calibration(rows, time.process_time() - start, options.seed)


def _rows(options: CalibrationOptions, advance: Callable[[int], object]) -> Iterator[Row]:
    yield from p_values(options.tests, options.seed)
    advance(1)
    yield from coverage(options.coverage)
    advance(1)
    yield from nulls(options.nulls, options.seed, advance)
