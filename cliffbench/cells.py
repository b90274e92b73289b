"""One instance under all methods: what a process of the bench does.

Each method's scores are a file as soon as they are there, so that a killed run goes on where it was.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cliffbench.additions import load_additions
from cliffbench.instances import Instance, Sizes, prepare
from cliffbench.methods import METHODS
from cliffbench.scores import HEAD_SCORES
from cliffbench.scores.direction import score_directions
from cliffbench.scores.verdict import score_verdicts
from interp.errors import CliffscopeError
from interp.files import write_text
from interp.json_values import without_nan

INSTANCE = "instance"
"""In the place of a method: what is asked of the instance itself."""


@dataclass(frozen=True)
class Task:
    """One instance to make ready and put through methods.

    Attributes:
        organism, seed, fresh: See `cliffbench.instances.prepare`.
        methods: Names of methods.
        sizes: How much it rests on.
        folder: The bench's folder.
        additions: Files with methods and mechanisms of one's own, for the process that does it.
    """

    organism: str
    seed: int
    fresh: bool
    methods: tuple[str, ...]
    sizes: Sizes
    folder: Path
    additions: tuple[Path, ...] = ()

    @property
    def cells(self) -> Path:
        """Where its scores are kept: another place for anything that would change them."""
        told = [asdict(self.sizes), self.fresh, version("cliffscope")]
        key = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]
        return self.folder / f".cells-{key}"

    def cell(self, method: str) -> Path:
        """The file of a method's scores."""
        return self.cells / f"{self.organism}-{self.seed}-{method}.json"

    @property
    def left(self) -> tuple[str, ...]:
        """What is not done yet."""
        return tuple(name for name in (INSTANCE, *self.methods) if not self.cell(name).is_file())


def run_task(task: Task) -> None:
    """Does what is left of a task, and writes its cells.

    An organism that cannot be made ready, or a method that refuses it, is a result too: the cell then holds the error.
    """
    import torch

    torch.set_num_threads(1)
    load_additions(task.additions)
    if not task.left:
        return
    try:
        start = _clock()
        instance = prepare(task.organism, task.seed, task.cells, fresh=task.fresh, sizes=task.sizes)
        spent = _since(start)
    except CliffscopeError as error:
        for name in task.left:
            _write(task, name, {"error": str(error)})
        return
    for name in task.left:
        _write(task, name, _scores_of_instance(instance, spent) if name == INSTANCE else scores_of(instance, name))


def scores_of(instance: Instance, name: str) -> dict[str, Any]:
    """A method's named heads and its scores by group, with the time that the search took."""
    start = _clock()
    try:
        found = METHODS[name](instance)
    except CliffscopeError as error:
        return {"error": str(error)}
    groups: dict[str, Mapping[str, float]] = {"time": _since(start)}
    groups |= {group: score(instance, found) for group, score in HEAD_SCORES.items()}
    return {
        "rows": [[name, group, score, value] for group, some in groups.items() for score, value in some.items()],
        "named": [str(head) for head in found.suppressors],
        "nothing": found.facts["nothing"],
    }


def _scores_of_instance(instance: Instance, spent: Mapping[str, float]) -> dict[str, Any]:
    rows: list[list[Any]] = [["prepare", "time", score, value] for score, value in spent.items()]
    for reading, some in score_verdicts(instance).items():
        rows += [[reading, "verdict", score, value] for score, value in some.items()]
    rows += [[way, "direction", "cosine", value] for way, value in score_directions(instance).items()]
    counts = {outcome: len(mine) for outcome, mine in instance.cases.rollouts.items()}
    return {
        "rows": rows,
        "planted": [str(head) for head in instance.truth.heads],
        "has_cliff": instance.truth.has_cliff,
        "sparse": instance.truth.sparse,
        "own_rollouts": instance.own,
        "rollouts": counts,
        "probe_layer": instance.probe.layer,
        "evidence": instance.cliff.evidence,
    }


def read_cells(tasks: Sequence[Task]) -> Iterator[tuple[Task, str, dict[str, Any]]]:
    """The cells that are there: task, method (or `INSTANCE`), content."""
    for task in tasks:
        for name in (INSTANCE, *task.methods):
            if task.cell(name).is_file():
                yield task, name, json.loads(task.cell(name).read_text(encoding="utf-8"))


def _write(task: Task, name: str, content: Mapping[str, Any]) -> None:
    write_text(task.cell(name), json.dumps(without_nan(content), ensure_ascii=False) + "\n")


def _clock() -> tuple[float, float]:
    return time.perf_counter(), sum(os.times()[:2])


def _since(start: tuple[float, float]) -> dict[str, float]:
    wall, cpu = _clock()
    return {"seconds": round(wall - start[0], 3), "cpu_seconds": round(cpu - start[1], 3)}
