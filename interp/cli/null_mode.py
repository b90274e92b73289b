"""Null mode of the commands: running a null of an analysis, and refusing one that makes no sense for it."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from interp.cli.options import NullName
from interp.errors import CliffscopeError

if TYPE_CHECKING:
    from interp.null_runs import NullRuns
    from probes.nulls import World


def refuse(null: NullName | None, reasons: Mapping[str, str] | Mapping[NullName, str]) -> None:
    """Raises `CliffscopeError` for a null that makes no sense here; `reasons` says why, by its name."""
    for name, reason in reasons.items():
        if null == name:
            raise CliffscopeError(f"--null {null}: {reason}.")


def set_against(
    null: NullName | None,
    runs: int,
    seed: int,
    world: "World",
    analysis: "Callable[[World], Mapping[str, float]]",
    observed: Mapping[str, float],
) -> "tuple[NullRuns, ...]":
    """What the analysis gives in the worlds of a null, beside what it gave.

    Empty if none was asked for, or nothing was found that could be set against it.
    """
    if null is None or all(math.isnan(value) for value in observed.values()):
        return ()
    from interp.progress import progress
    from probes.nulls import run_null

    with progress(f"Null: {null.value}", runs, "runs") as bar:
        return run_null(null.value, world, analysis, observed, runs=runs, seed=seed, advance=bar.advance)


def note(null: NullName | None, nulls: "Sequence[NullRuns]") -> str:
    """What is said below a table of a null that was asked for."""
    if null is None:
        return ""
    if not nulls:
        return f"--null {null.value}: nothing was found, so there is nothing to set against it."
    return "\n".join(one.sentence for one in nulls)
