"""Files of scores: made by a job that can be killed at any moment and goes on where it was, in bounded memory.

Beside the output `scores.jsonl` a running job keeps two files. Finished rows are appended to `.scores.jsonl.rows` and
synced; after each batch `.scores.jsonl.partial` says how many examples of the pool are done and how long the rows are
by then. What was written beyond that is cut off when the job goes on, so a run that was killed ends with the same bytes
as one that was not. At the end `scores.jsonl.settings.json` says how the scores were made and the rows become
`scores.jsonl`: one line an example, in the order of the pool, with the texts of the rollout.

What is chosen from the scores is no part of it: other methods and budgets read the same file.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from interp.errors import CliffscopeError
from interp.files import write_text
from interp.progress import progress
from interp.rollouts import Rollout
from interp.rollouts.job import settings_path
from interp.rollouts.job_log import JobLog
from probes.linear import LinearProbe
from selection.pool import PoolSurvey, hash_file, read_pool
from selection.scoring import Score, Scored, Scorer, rollout_from_score_row, score_from_row

FORMAT = "cliffscope-scores"
VERSION = 1

OPTIONAL = ("judge", "loss_target")
"""Settings that add a column: scores that have it serve also those who do not ask for it."""


class ScoreFile:
    """A finished file of scores; texts are read when they are asked for.

    Attributes:
        path: The file.
        settings: How it was made.
        scores: One an example, in the order of the pool.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.settings = _read_settings(self.path)
        self.scores: list[Score] = []
        self._offsets: dict[str, int] = {}
        try:
            with self.path.open("rb") as lines:
                offset = 0
                for line in lines:
                    score = score_from_row(json.loads(line))
                    self.scores.append(score)
                    self._offsets[score.id] = offset
                    offset += len(line)
        except OSError as error:
            raise CliffscopeError(f"{self.path}: cannot be read ({error.strerror or error}).") from error
        except (ValueError, KeyError) as error:
            raise CliffscopeError(
                f"{self.path}, line {len(self.scores) + 1}: not a line of scores; use --restart to make them again."
            ) from error

    def rollouts(self, ids: Sequence[str]) -> dict[str, Rollout]:
        """The rollouts of some examples by id."""
        with self.path.open("rb") as file:
            return {id: self._read(file, id) for id in ids}

    def prompt(self, id: str) -> str:
        """The prompt of one example."""
        return self.rollouts([id])[id].prompt

    def _read(self, file: Any, id: str) -> Rollout:
        file.seek(self._offsets[id])
        return rollout_from_score_row(json.loads(file.readline()))


def score_pool(
    scorer: Scorer,
    survey: PoolSurvey,
    out: str | os.PathLike[str],
    *,
    batch_size: int = 64,
    restart: bool = False,
) -> ScoreFile:
    """Scores a whole pool and writes the scores to `out`; goes on with what an earlier run left.

    Where `out` is finished already, with the same settings, it is read and nothing is done.

    Args:
        scorer: Scores a batch.
        survey: Of the pool, from `survey_pool`.
        out: The JSON Lines file to make.
        batch_size: Examples between two savings; no part of the settings, so that a job that ran out of memory can go
            on with smaller batches.
        restart: Throw away what an earlier run left, and replace `out` at the end.

    Raises:
        CliffscopeError: If what is there was made with other settings or changed since, if another run is writing it,
            if the disk is full (what was finished before stays), or as `Scorer.score`.
    """
    if batch_size < 1:
        raise CliffscopeError(f"batch size must be at least 1, found {batch_size}.")
    path = Path(out)
    header = _header(scorer, survey)
    rows_path = path.with_name(f".{path.name}.rows")
    with JobLog.open(path.with_name(f".{path.name}.partial"), path) as log:
        if not restart and _is_finished(path, header, log.header):
            log.discard()
            rows_path.unlink(missing_ok=True)
            return ScoreFile(path)
        if restart or log.header is None:
            log.start({**header, "replaces": hash_file(path) if path.exists() else None})
        else:
            _require_same(header, log.header, f"{path}: an unfinished run with other settings is there", ())
        done = sum(row["examples"] for row in log.rows)
        with _rows(rows_path, path, log.rows[-1]["end"] if log.rows else 0) as rows:
            with progress("Scoring", survey.count, "prompts", done) as bar:
                examples = islice(read_pool(survey.path), done, None)
                while batch := list(islice(examples, batch_size)):
                    end = rows.append(scorer.score(batch))
                    log.append({"examples": len(batch), "end": end})
                    bar.advance(len(batch))
        # The record first: a file without it would not be recognized.
        made = {key: value for key, value in (log.header or {}).items() if key != "replaces"}
        record = {**made, "sha256": hash_file(rows_path)}
        write_text(settings_path(path), json.dumps(record, indent=2, ensure_ascii=False) + "\n")
        rows_path.replace(path)
        log.discard()
    return ScoreFile(path)


def probe_hash(probe: LinearProbe) -> str:
    """SHA-256 of all that a probe's scores depend on."""
    facts = json.dumps([probe.site, probe.bias], ensure_ascii=True).encode("ascii")
    return hashlib.sha256(facts + probe.weight.numpy().tobytes()).hexdigest()


def _header(scorer: Scorer, survey: PoolSurvey) -> dict[str, Any]:
    header = {
        "format": FORMAT,
        "version": VERSION,
        "pool": {"examples": survey.count, "sha256": survey.sha256},
        "probe": {"sha256": probe_hash(scorer.probe), "site": scorer.probe.site, "layer": scorer.probe.layer},
        "settings": scorer.settings,
    }
    # As it is read back from a file, so that comparing is fair.
    as_read: dict[str, Any] = json.loads(json.dumps(header))
    return as_read


def _is_finished(path: Path, header: Mapping[str, Any], log_header: Mapping[str, Any] | None) -> bool:
    """Whether the scores are there already. Raises `CliffscopeError` if others are, which must not be replaced."""
    if not path.exists():
        return False
    digest = hash_file(path)
    if log_header is not None and log_header.get("replaces") == digest:
        # What an unfinished run was told to replace.
        return False
    record = _read_settings(path)
    _require_same(header, record, f"{path}: is there already, made with other settings", OPTIONAL)
    if record.get("sha256") != digest:
        raise CliffscopeError(
            f"{path}: was changed since it was made; choose another name, or use --restart to replace it."
        )
    return True


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(settings_path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        record = None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise CliffscopeError(
            f"{path}: nothing says that it is a file of scores and how it was made; choose another name or use "
            "--restart."
        )
    return record


def _require_same(wanted: Mapping[str, Any], found: Mapping[str, Any], what: str, optional: Sequence[str]) -> None:
    """Raises `CliffscopeError` naming the first setting that differs; those optional may be there unasked."""
    there, now = _flat(found), _flat(wanted)
    for key, value in now.items():
        if there.get(key) != value and not (key.split(".")[-1] in optional and value is None):
            raise CliffscopeError(
                f"{what} ({key} is {there.get(key)!r} there and {value!r} now); choose another name, or use --restart "
                "to start over."
            )


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= _flat(item, f"{prefix}{key}.") if isinstance(item, Mapping) else {f"{prefix}{key}": item}
    return flat


class _Rows:
    """The rows of an unfinished job."""

    def __init__(self, descriptor: int, out: Path) -> None:
        self._descriptor, self._out = descriptor, out

    def append(self, scored: Sequence[Scored]) -> int:
        """Adds rows, and returns the length of the file when they are on the disk."""
        data = "".join(json.dumps(item.as_row(), ensure_ascii=False) + "\n" for item in scored).encode("utf-8")
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
            os.fsync(self._descriptor)
        except OSError as error:
            raise CliffscopeError(
                f"{self._out}: cannot be written ({error.strerror or error}); what was finished before is kept: "
                "make room and run the same command again."
            ) from error
        return os.fstat(self._descriptor).st_size


@contextmanager
def _rows(path: Path, out: Path, length: int) -> Iterator[_Rows]:
    """The file of rows, cut to what the log knows of; removed if nothing was finished."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise CliffscopeError(f"{out}: cannot be written ({error.strerror or error}).") from error
    try:
        if os.fstat(descriptor).st_size < length:
            raise CliffscopeError(f"{path}: is shorter than it was; use --restart to start over.")
        os.ftruncate(descriptor, length)
        yield _Rows(descriptor, out)
    finally:
        if os.fstat(descriptor).st_size == 0:
            path.unlink(missing_ok=True)
        os.close(descriptor)
