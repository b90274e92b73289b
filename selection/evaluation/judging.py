"""Judging rollouts in batches, with every verdict kept: what is killed, or stopped by a cap, goes on where it was."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from interp.judges import Judge, Judgement
from interp.progress import progress
from interp.rollouts import Rollout
from interp.rollouts.job_log import JobLog


def judge_resumably(
    rollouts: Sequence[Rollout], judge: Judge, path: Path, *, batch_size: int, restart: bool = False
) -> list[Judgement]:
    """One judgement for each rollout, in their order; verdicts are kept in a log.

    A rollout without a verdict is asked about again every time: a cap may have been in the way.

    Args:
        rollouts: What to judge.
        judge: Gives the same judgement of the same rollout, whatever stands beside it.
        path: The log. It stays, with the reasons; what another judge, or other rollouts, left there is dropped.
        batch_size: Rollouts between two savings.
        restart: Drop what is there.

    Raises:
        CliffscopeError: If the judge fails, if the log cannot be written, or if another run is writing it.
    """
    content = json.dumps([[r.id, r.prompt, r.thinking, r.response, r.harmful] for r in rollouts])
    header = {"judge": judge.name, "rollouts": hashlib.sha256(content.encode()).hexdigest()}
    with JobLog.open(path, path) as log:
        if restart or log.header != header:
            log.start(header)
        known = {row["id"]: row for line in log.rows for row in line["judgements"]}
        found = {id: Judgement(row["refused"], row["score"], row["reason"]) for id, row in known.items()}
        left = [rollout for rollout in rollouts if rollout.id not in found]
        with progress("Judging", len(rollouts), "rollouts", len(found)) as bar:
            for first in range(0, len(left), batch_size):
                batch = left[first : first + batch_size]
                made = dict(zip((rollout.id for rollout in batch), judge.judge(batch), strict=True))
                found |= made
                verdicts = [{"id": id, **asdict(made[id])} for id in made if made[id].refused is not None]
                if verdicts:
                    log.append({"judgements": verdicts})
                bar.advance(len(batch))
    return [found[rollout.id] for rollout in rollouts]
