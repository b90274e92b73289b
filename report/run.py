"""`Run`: what a run's folder holds, read without a model and without torch.

The classes that write these files import torch, which takes seconds; a report needs their plain forms only.
"""

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from interp.errors import CliffscopeError
from interp.files import read_jsonl
from interp.rollouts import Rollout
from interp.rollouts.rollout import rollout_from_row
from report.kinds import COLUMNS, KEYS, Artefact, artefacts, read_object, reason
from report.problems import Problem
from report.text import shown

BASE = "base"
"""The name of the model's own answers; other sets of answers to the same prompts have names of their own."""


@dataclass(frozen=True)
class Table:
    """A table with what its file says of it."""

    name: str
    rows: pd.DataFrame
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Run:
    """A run.

    Attributes:
        folder: Where it is.
        files: What is in it.
        answers: Sets of rollouts by name, `BASE` first: each by id.
        sources: The file of each set.
        scores: The tables of token scores by the same names.
        tables: Other tables by kind; several where there are.
        objects: Other facts by kind, as `(file name, content)`.
        broken: What cannot be read.
        notes: What was read but is not shown, in words.
    """

    folder: Path
    files: list[Artefact] = field(default_factory=list)
    answers: dict[str, dict[str, Rollout]] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    scores: dict[str, pd.DataFrame] = field(default_factory=dict)
    tables: dict[str, list[Table]] = field(default_factory=lambda: defaultdict(list))
    objects: dict[str, list[tuple[str, Mapping[str, Any]]]] = field(default_factory=lambda: defaultdict(list))
    broken: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def table(self, kind: str) -> Table | None:
        """The first table of a kind."""
        return next(iter(self.tables[kind]), None)

    def object(self, kind: str) -> Mapping[str, Any]:
        """The first object of a kind; empty if there is none."""
        return next((content for _, content in self.objects[kind]), {})

    def of(self, *parts: str) -> list[Problem]:
        """What is broken among some parts."""
        return [problem for problem in self.broken if problem.part in parts]

    def lacks(self, part: str) -> bool:
        """Whether a part is neither there nor broken."""
        return not (self.tables[part] or self.objects[part] or self.of(part))


def read_run(folder: str | os.PathLike[str]) -> Run:
    """Reads a run's folder; what cannot be read is in `Run.broken`.

    Raises:
        CliffscopeError: If there is no such folder, or nothing in it comes from Cliffscope.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CliffscopeError(f"{folder}: no such folder; give that of a run, such as `cliffscope demo` makes.")
    try:
        files = list(artefacts(folder))
    except OSError as error:
        raise CliffscopeError(f"{folder}: cannot be read ({error.strerror or error}).") from error
    if all(file.kind == "other" for file in files):
        raise CliffscopeError(
            f"{folder}: nothing here that Cliffscope made; see `cliffscope demo` for what a run holds."
        )
    run = Run(folder, files)
    rollouts: dict[str, dict[str, Rollout]] = {}
    for file in files:
        if file.problem is not None:
            run.broken.append(Problem(file.kind, file.problem, file.path.name))
            continue
        try:
            if file.kind == "rollouts":
                rollouts[file.path.name] = read_rollouts(file.path, run)
            elif file.kind in COLUMNS:
                run.tables[file.kind].append(Table(file.path.name, read_table(file), file.facts))
            elif file.kind in ("selected", "pool_scores"):
                rows = [_without_text(row) for _, row in read_jsonl(file.path)]
                run.tables[file.kind].append(Table(file.path.name, pd.DataFrame(rows)))
            elif file.kind != "other":
                run.objects[file.kind].append((file.path.name, file.facts))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as error:
            run.broken.append(Problem(file.kind, reason(file.path, error), file.path.name))
    name_answers(run, rollouts)
    name_scores(run)
    for path in sorted(folder.glob("*/repair.json")):
        _read_repair(path, run)
    return run


def read_rollouts(path: Path, run: Run) -> dict[str, Rollout]:
    """Rollouts by id as the page shows them; a line that is broken is told, and the others are kept."""
    found: dict[str, Rollout] = {}
    bad: list[str] = []
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                rollout = _rollout(line, number)
            except ValueError as error:
                bad.append(str(error))
                continue
            if rollout.id in found:
                bad.append(f"line {number}: the id {rollout.id!r} occurs twice")
                continue
            found[rollout.id] = rollout
    if bad:
        first = bad[0][:1].upper() + bad[0][1:].rstrip(".")
        more = f", and {len(bad) - 1} more lines are broken" if len(bad) > 1 else ""
        left = f"the other {len(found)} are shown" if found else "none can be shown"
        run.broken.append(Problem("rollouts", f"{first}{more}; {left}.", path.name))
    return found


def _rollout(line: bytes, number: int) -> Rollout:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"line {number}: not valid JSON") from error
    if not isinstance(row, dict):
        raise ValueError(f"line {number}: expected a JSON object, found {type(row).__name__}")
    if missing := [key for key in KEYS["rollouts"] if key not in row]:
        raise ValueError(f"line {number}: it has no {', '.join(missing)}")
    names = Rollout.__dataclass_fields__
    # Texts become what the page shows first: characters that no file of rollouts may hold must not stop it either.
    return rollout_from_row(
        {k: shown(v) if isinstance(v, str) else v for k, v in row.items() if k in names}, f"line {number}"
    )


def read_table(file: Artefact) -> pd.DataFrame:
    """A table's rows. Raises `CliffscopeError` if they cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        columns = [name for name in pq.read_schema(file.path).names if name in _WANTED.get(file.kind, (name,))]
        rows: pd.DataFrame = pq.read_table(file.path, columns=columns).to_pandas()
    except (pa.ArrowException, OSError) as error:
        raise CliffscopeError(f"not a whole Parquet file ({str(error).splitlines()[0]}).") from error
    for name in _NUMBERS[file.kind]:
        if name in rows and not pd.api.types.is_numeric_dtype(rows[name]):
            raise CliffscopeError(f"the column {name} holds no numbers.")
    if "id" in rows:
        # As the page shows them, like those of the rollouts; each of the few is looked at once.
        codes, ids = pd.factorize(rows["id"].astype(object), use_na_sentinel=False)
        rows["id"] = np.array([shown(str(id)) for id in ids], dtype=object)[codes]
    if "token" in rows:
        rows["token"] = rows["token"].fillna("").astype(str)
    return rows


_WANTED = {"scores": COLUMNS["scores"]}
_NUMBERS = {
    "scores": ("token_index", "score"),
    "cliff": ("plateau", "edge", "cliff"),
    "layers": ("layer", "plateau", "edge", "cliff"),
    "sweep": ("layer", "auroc"),
    "heads": ("rank", "layer", "head", "score", "low", "high", "q"),
    "curve": ("n_heads", "refusal_logit", "asr"),
    "doses": ("layer", "alpha", "asr", "refusal_benign", "kl_benign"),
}


def name_answers(run: Run, files: Mapping[str, dict[str, Rollout]]) -> None:
    """Names the sets of answers: the model's own, and those to the same prompts by a model that was changed."""
    files = {name: rollouts for name, rollouts in files.items() if rollouts}
    if not files:
        return
    cliff = run.table("cliff")
    ids = set() if cliff is None else set(cliff.rows["id"])
    own = "rollouts.jsonl"
    if own not in files:
        # The file whose rollouts the cliff was measured on; else the largest, the first by name where several are.
        own = max(sorted(files), key=lambda name: (len(ids & files[name].keys()), len(files[name])))
    run.answers[BASE], run.sources[BASE] = files[own], own
    for name, rollouts in files.items():
        shared = {id: rollout for id, rollout in rollouts.items() if id in files[own]}
        if name == own:
            continue
        if any(
            (r.thinking, r.response) != (files[own][id].thinking, files[own][id].response) for id, r in shared.items()
        ):
            called = name.removesuffix(".jsonl").removeprefix("rollouts-")
            run.answers[called], run.sources[called] = shared, name
            continue
        # The same answers, as those of one kind or with a judge's verdicts.
        base = run.answers[BASE]
        judged = {id: r for id, r in shared.items() if base[id].refused is None and r.refused is not None}
        run.answers[BASE] = base | judged
        if judged:
            run.notes.append(f"{len(judged)} verdicts are those of {name}.")
        if len(shared) < len(rollouts):
            run.notes.append(f"{name} holds rollouts of other prompts than {own}; the explorer shows the latter.")


def name_scores(run: Run) -> None:
    """Gives each table of token scores the name of the answers whose text its tokens spell."""
    for table in run.tables.pop("scores", []):
        stem = table.name.removesuffix(".parquet")
        hint = stem.removeprefix("scores-") if stem != "scores" else BASE
        names = sorted(run.answers, key=lambda name: (name != hint, name != BASE, name))
        found = next((n for n in names if n not in run.scores and _spells(table.rows, run.answers[n].values())), None)
        if not run.answers and BASE not in run.scores:
            found = BASE
        if found is None:
            why = "Its tokens are not those of any rollouts in this folder."
            run.broken.append(Problem("scores", why, table.name))
        else:
            run.scores[found] = table.rows


def _spells(rows: pd.DataFrame, rollouts: Iterable[Rollout], tried: int = 5) -> bool:
    """Whether the tokens of the first rollouts with a response hold that response."""
    texts = {r.id: r.response for r in rollouts if r.response}
    known = [id for id in dict.fromkeys(rows["id"].head(200_000)) if id in texts][:tried]
    mine = rows[rows["id"].isin(known)]
    for id, tokens in mine.groupby("id")["token"]:
        # White space at the ends may belong to tokens of the template; a character in several tokens is in none.
        if "\ufffd" not in (joined := "".join(tokens)) and texts[str(id)].strip() not in shown(joined):
            return False
    return bool(known)


def _read_repair(path: Path, run: Run) -> None:
    try:
        run.objects["repair"].append((path.parent.name, read_object(path)))
    except (OSError, ValueError) as error:
        run.broken.append(Problem("repair", reason(path, error), f"{path.parent.name}/{path.name}"))


def _without_text(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if not isinstance(value, list | dict)}
