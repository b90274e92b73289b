"""`dose_response`: every dose measured, one after the other; killed at any moment, it goes on where it was.

A running sweep that writes `sweep.parquet` keeps `.sweep.parquet.partial` beside it: a first line with what is being
measured, then one line for each dose, appended and synced (see `interp.rollouts.job_log`). When all are there the table
is written. The unsteered model's rollouts are in its line, so that those who go on read the same texts.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.errors import CliffscopeError
from interp.json_values import as_json_holds
from interp.judges import Judge, KeywordJudge
from interp.rollouts.job import require_same
from interp.rollouts.job_log import JobLog
from interp.rollouts.prompts import Prompt, PromptSet
from interp.rollouts.rollout import checked_row, rollout_from_row
from interventions.dose.bench import Bench, check_prompts
from interventions.dose.options import Cell, DoseOptions, cells
from interventions.dose.response import DoseResponse
from interventions.dose.vector import Vector, check_vector, default_mode, vector_facts

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel


def dose_response(
    model: "HookedModel",
    vector: Vector,
    prompts: Sequence[Prompt],
    options: DoseOptions,
    *,
    judge: Judge | None = None,
    out: str | os.PathLike[str] | None = None,
    restart: bool = False,
    advance: Callable[[int], None] = lambda amount: None,
) -> DoseResponse:
    """Answers the prompts at every dose, with random directions of equal norm as the control.

    Args:
        model: The model.
        vector: A direction, a subspace, or a transport map; it acts at its own site's name in each layer.
        prompts: Harmful and benign ones, with different ids.
        options: Which doses, and how; see there.
        judge: `KeywordJudge` if not given.
        out: The Parquet file to write. Where it is there already, made with the same settings, nothing is measured;
            what a killed run left is taken up.
        restart: Throw away what an earlier run left, and replace `out` at the end.
        advance: Called after each dose, also those taken up, with 1; `n_cells(options)` tells how many there are.

    Raises:
        CliffscopeError: If prompts are neither harmful nor benign, or one kind is missing; if the vector does not fit
            the model, the mode or a layer; if `out` or what an earlier run left was made with other settings.
    """
    check_prompts(prompts)
    options = replace(options, mode=options.mode or default_mode(vector))
    check_vector(model, vector, options)
    bench, grid = Bench(model, vector, prompts, options, judge or KeywordJudge()), list(cells(options))
    header = _header(bench)
    path = None if out is None else Path(out)
    with nullcontext() if path is None else JobLog.open(path.with_name(f".{path.name}.partial"), path) as log:
        if path is not None and log is not None:
            if (finished := _taken_up(path, log, header, restart)) is not None:
                advance(len(grid))
                return finished
        response = DoseResponse.of(_measure(bench, grid, log, advance), model.name, header)
        if path is not None and log is not None:
            response.save(path)
            log.discard()
    return response


def _measure(
    bench: Bench, grid: Sequence[Cell], log: JobLog | None, advance: Callable[[int], None]
) -> list[dict[str, Any]]:
    """The rows of all doses, those in the log first."""
    rows = []
    for number, cell in enumerate(grid):
        if log is not None and number < len(log.rows):
            line = log.rows[number]
        else:
            line = {"row": bench.row(cell)}
            if cell.layer is None:
                line["rollouts"] = [checked_row(rollout, "generated") for rollout in bench.unsteered]
            if log is not None:
                log.append(line)
        if cell.layer is None:
            bench.unsteered = [rollout_from_row(row, "what an earlier run left") for row in line["rollouts"]]
        rows.append(line["row"])
        advance(1)
    return rows


def _header(bench: Bench) -> dict[str, Any]:
    """All that the table depends on: two sweeps with the same header give the same table."""
    prompts = bench.prompts if isinstance(bench.prompts, PromptSet) else PromptSet(tuple(bench.prompts))
    options = {name: value for name, value in asdict(bench.options).items() if name != "batch_tokens"}
    return as_json_holds(
        {
            "generator": {name: value for name, value in bench.settings.items() if name not in options},
            "vector": vector_facts(bench.vector),
            "prompts": {"count": len(prompts), "sha256": prompts.fingerprint},
            "judge": bench.judge.name,
            "options": options,
        }
    )


def _taken_up(path: Path, log: JobLog, header: dict[str, Any], restart: bool) -> DoseResponse | None:
    """A finished table with the same settings; `None` if there is work to do, and the log then says of what.

    Raises:
        CliffscopeError: If something else is there.
    """
    digest = _digest(path)
    unfinished = log.header is not None and log.header.get("replaces") == digest
    if not restart and digest is not None and not unfinished:
        try:
            finished = DoseResponse.load(path)
        except CliffscopeError as error:
            advice = "choose another name, or use --restart to replace it"
            raise CliffscopeError(f"{path}: is there already, and no table of doses; {advice}.") from error
        require_same(header, finished.facts, f"{path}: is there already, made with other settings")
        log.discard()
        return finished
    if restart or log.header is None:
        log.start({**header, "replaces": digest})
    else:
        require_same(header, log.header, f"{path}: an unfinished run with other settings is there")
    return None


def _digest(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
