"""The bench: every organism × seed × method, on all cores, resumable; its table, summary and files."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import pandas as pd

from cliffbench.cells import Task, read_cells, run_task
from cliffbench.instances import Sizes
from cliffbench.methods import METHODS, chosen
from cliffbench.planting import check_organisms, organisms
from interp.errors import CliffscopeError
from interp.table_files import TableFormat

COLUMNS = ("organism", "seed", "method", "group", "score", "value")
FORMAT = TableFormat("cliffscope.bench", "1", "a table of bench scores", "run the bench again", COLUMNS)

QUICK = Sizes(n_harmful=80, n_benign=40, n_test=20, n_shuffles=39, pairs=40)
"""Less to rest on, for `--quick`."""


@dataclass(frozen=True)
class BenchOptions:
    """What is put through what.

    Attributes:
        organisms: Names; all if empty.
        methods: Names; all if empty.
        seeds: How many, from 0.
        fresh: Whether mechanisms are planted anew with each seed; else the shipped weights serve them all.
        sizes: How much an instance rests on.
        jobs: Processes; as many as there are cores if `None`.
        additions: Files with methods and mechanisms of one's own, loaded before.

    Raises:
        CliffscopeError: If an organism or method is unknown, or a number is below 1.
    """

    organisms: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    seeds: int = 5
    fresh: bool = True
    sizes: Sizes = field(default_factory=Sizes)
    jobs: int | None = None
    additions: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        check_organisms(self.organisms)
        if self.methods:
            chosen(",".join(self.methods))
        if self.seeds < 1 or (self.jobs is not None and self.jobs < 1):
            raise CliffscopeError(f"bench: {self.seeds} seeds and {self.jobs} jobs; both must be at least 1.")

    def tasks(self, folder: Path) -> list[Task]:
        """One an instance: seeds outside, so that a run that was stopped early has every organism."""
        return [
            Task(organism, seed, self.fresh, self.methods or tuple(METHODS), self.sizes, folder, self.additions)
            for seed in range(self.seeds)
            for organism in self.organisms or organisms()
        ]


def run_bench(options: BenchOptions, folder: Path, advance: Callable[[int], object] = lambda tasks: None) -> list[Task]:
    """Does what is left, in as many processes as there are jobs; each has one thread.

    Args:
        options: What to do.
        folder: Where cells and caches are kept.
        advance: Told how many instances more are done.

    Returns:
        The tasks; `cliffbench.cells.read_cells` gives what they found.
    """
    tasks = options.tasks(folder)
    left = [task for task in tasks if task.left]
    advance(len(tasks) - len(left))
    jobs = min(options.jobs or os.cpu_count() or 1, max(1, len(left)))
    if jobs == 1:
        for task in left:
            run_task(task)
            advance(1)
        return tasks
    # Started anew and not forked: torch's threads do not survive a fork.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        waiting = [pool.submit(run_task, task) for task in left]
        try:
            for done in as_completed(waiting):
                done.result()
                advance(1)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return tasks


def table_of(tasks: Sequence[Task]) -> pd.DataFrame:
    """One row a score: `organism`, `seed`, `method` (or the way of reading), `group`, `score`, `value`."""
    rows = [(task.organism, task.seed, *row) for task, _, cell in read_cells(tasks) for row in cell.get("rows", ())]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.astype({"value": "float64"})
