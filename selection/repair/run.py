"""Repair as a job that can be killed at any moment and goes on from its last whole checkpoint.

While it works there is `.NAME.partial` beside the folder `NAME` that it makes: a log whose first line says what is
being trained, with one line for each whole checkpoint; the checkpoints; and at the end the finished model, which is
then renamed to `NAME`. A checkpoint that the log does not name was being written when the job died, and is removed.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from interp.errors import CliffscopeError
from interp.manifest import library_versions
from interp.models.hooked_model import HookedModel
from interp.rollouts.job_log import JobLog
from interventions.masks.fit import check_fit, fingerprint_of
from selection.examples import TrainingExample
from selection.repair.dataset import tokenize
from selection.repair.machine import check_machine, computes_in_bfloat16
from selection.repair.mix import mix
from selection.repair.options import RepairOptions
from selection.repair.preflight import Preflight
from selection.repair.processes import from_first, is_first, own_random_numbers, world_size
from selection.repair.report import MANIFEST, RepairReport

if TYPE_CHECKING:
    from selection.repair.trainable import TrainedPart

_LOGGED = {
    "step": "step",
    "epoch": "epoch",
    "loss": "loss",
    "learning_rate": "learning_rate",
    "gradient_norm": "grad_norm",
}
"""What is kept of the trainer's log, and what it calls it."""

_LIBRARIES = ("cliffscope", "torch", "transformers", "trl", "peft", "accelerate")


def repair(
    model: str,
    examples: Sequence[TrainingExample],
    out: str | os.PathLike[str],
    options: RepairOptions | None = None,
    *,
    benign: Sequence[TrainingExample] = (),
    restart: bool = False,
) -> RepairReport:
    """Fine-tunes a model on examples, and writes it as a plain checkpoint with a manifest.

    Killed at any moment and run again, it gives the same bytes as an uninterrupted run, on the same machine with the
    same libraries; on one CPU thread surely, on other devices as far as their arithmetic repeats itself. Under
    `torchrun` every process calls it, and each gets the report.

    Args:
        model: A Hugging Face id, a local folder, or `organism:NAME`; it is never written to.
        examples: What to learn.
        out: A new folder; an empty one is taken, too.
        options: How.
        benign: Benign examples to mix in, with the model's own answers as responses.
        restart: Throw away what an earlier run left, and replace its result.

    Raises:
        CliffscopeError: If the model or an example cannot be used, an example has nothing left to learn, `out` holds
            something else, or the training cannot go on; nothing but whole checkpoints is left then.
    """
    options = options or RepairOptions()
    if options.benign_share is not None and not benign:
        raise CliffscopeError("repair: a benign share is asked for, and no benign examples are given.")
    job = _Job(model, list(examples), mix(examples, benign, options.benign_share, options.seed), Path(out), options)
    with own_random_numbers():
        return job.run(restart)


class _Job:
    """One repair."""

    def __init__(
        self,
        base: str,
        examples: list[TrainingExample],
        benign: list[TrainingExample],
        out: Path,
        options: RepairOptions,
    ) -> None:
        from selection.repair.checkpoint import load_base

        self.base, self.out, self.options = base, out, options
        self.work = out.with_name(f".{out.name}.partial")
        self.checkpoints = self.work / "checkpoints"
        _check_place(base, out)
        check_machine(options)
        if world_size() > 1:
            from selection.repair.trainer import configuration

            configuration(options, len(examples) + len(benign), self.checkpoints)  # the processes join
        self.model = HookedModel(*load_base(base), name=base)
        self.model.chat.require_template()
        if options.mask is not None:
            check_fit(options.mask, self.model, weights=True)
        self.tokens = [
            *tokenize(self.model, examples, options.loss_on, options.max_length),
            *tokenize(self.model, benign, options.loss_on, options.max_length, benign=True),
        ]
        self.preflight = Preflight.of(self.tokens)
        self.settings = _as_read(
            {
                "base": {"name": base, **fingerprint_of(self.model, range(self.model.n_layers))},
                "data": {"count": len(examples), "sha256": _digest(examples)},
                "benign": {"count": len(benign), "sha256": _digest(benign)} if benign else None,
                "options": options.settings(),
            }
        )

    def run(self, restart: bool) -> RepairReport:
        """Finds out where an earlier run was, goes on, and puts the result in its place."""
        with contextlib.ExitStack() as stack:
            log = stack.enter_context(self._log()) if is_first() else None
            step: int | None = from_first(lambda: self._plan(log, restart))
            if step is None:
                return RepairReport.load(self.out)
            report = self._train(step, log)
            if log is not None:
                log.discard()
            from_first(lambda: None)  # nobody leaves before the result is there
            return report

    @contextlib.contextmanager
    def _log(self) -> Iterator[JobLog]:
        path = self.work / "log.jsonl"
        try:
            with JobLog.open(path, self.out / MANIFEST) as log:
                yield log
        finally:
            if not path.exists():  # all is done, or there is no whole checkpoint to keep it for
                shutil.rmtree(self.work, ignore_errors=True)

    def _plan(self, log: JobLog | None, restart: bool) -> int | None:
        """The step to go on from, 0 for the beginning; `None` if it is finished already."""
        assert log is not None
        finished = _manifest_digest(self.out)
        replaces = log.header is not None and log.header.get("replaces") == finished
        if finished is not None and not restart and not replaces:
            _require_same(self.settings, RepairReport.load(self.out).facts, f"{self.out}: is there already, made")
            log.discard()
            return None
        _check_free(self.out, restart or replaces)
        if restart or log.header is None:
            shutil.rmtree(self.checkpoints, ignore_errors=True)
            log.start({**self.settings, "replaces": finished})
        else:
            _require_same(self.settings, log.header, f"{self.out}: an unfinished repair is there,")
        whole = [row["step"] for row in log.rows if (self.checkpoints / f"checkpoint-{row['step']}").is_dir()]
        for folder in self.checkpoints.glob("checkpoint-*"):
            if folder.name not in {f"checkpoint-{step}" for step in whole}:
                shutil.rmtree(folder)
        return max(whole, default=0)

    def _train(self, step: int, log: JobLog | None) -> RepairReport:
        from selection.repair.trainable import prepare
        from selection.repair.trainer import train

        def saved(done: int) -> None:
            if log is not None:
                log.append({"step": done})

        self.model.hf.float()
        part = prepare(self.model, self.options)
        with _writing(self.out):
            trainer = train(
                part,
                self.model.tokenizer,
                self.tokens,
                self.options,
                self.checkpoints,
                resume_from=self.checkpoints / f"checkpoint-{step}" if step else None,
                saved=saved,
            )
        steps = [entry for entry in trainer.state.log_history if "loss" in entry]
        losses = [{name: entry[key] for name, key in _LOGGED.items()} for entry in steps]
        facts = {
            **self.settings,
            "tokens": self.preflight.summary(),
            "trained": part.facts(),
            "steps": trainer.state.global_step,
            "loss": {"first": losses[0]["loss"], "last": losses[-1]["loss"]},
            "precision": "bfloat16" if computes_in_bfloat16(self.options) else "float32",
            "versions": library_versions(_LIBRARIES),
        }
        report = RepairReport(self.out, facts, losses, resumed_from=step)
        state = trainer.accelerator.get_state_dict(trainer.model_wrapped)  # gathered from all processes
        if is_first():
            self._write(report, part, state)
        return report

    def _write(self, report: RepairReport, part: "TrainedPart", state: Mapping[str, Tensor]) -> None:
        """Makes the finished folder beside its place, and renames it."""
        from selection.repair.checkpoint import write_model

        folder = self.work / "model"
        with _writing(self.out):
            shutil.rmtree(folder, ignore_errors=True)
            write_model(self.base, part, state, folder, self.options.keep_adapter)
            report.save(folder)
            if self.out.exists():
                shutil.rmtree(self.work / "replaced", ignore_errors=True)
                self.out.replace(self.work / "replaced")
            folder.replace(self.out)


@contextlib.contextmanager
def _writing(out: Path) -> Iterator[None]:
    """Says in one line that a disk is full, in whatever words a library says it."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).splitlines()[0]
        if isinstance(error, RuntimeError) and "inline_container" not in str(error):
            raise
        raise CliffscopeError(
            f"{out}: cannot be written ({reason}); whole checkpoints are kept: make room and run the same again."
        ) from error


def _check_place(base: str, out: Path) -> None:
    """Refuses to write into or above the model."""
    folder = Path(base).expanduser()
    if folder.is_dir() and (folder.resolve() == out.resolve() or out.resolve() in folder.resolve().parents):
        raise CliffscopeError(f"{out}: holds the model that is to be repaired; give another folder.")


def _check_free(out: Path, replace: bool) -> None:
    """Refuses a folder that holds something else than a repair that may be replaced."""
    if out.exists() and not (out.is_dir() and (not any(out.iterdir()) or (replace and (out / MANIFEST).is_file()))):
        raise CliffscopeError(f"{out}: already there; give a new or an empty folder.")


def _manifest_digest(out: Path) -> str | None:
    path = out / MANIFEST
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _require_same(wanted: Mapping[str, Any], found: Mapping[str, Any], what: str) -> None:
    """Raises `CliffscopeError` naming the first setting that differs."""
    there, now = _flat({key: found.get(key) for key in wanted}), _flat(wanted)
    for key in (*now, *there):
        if there.get(key) != now.get(key):
            raise CliffscopeError(
                f"{what} with other settings ({key} is {there.get(key)!r} there and {now.get(key)!r} now); choose "
                "another folder, or use --restart to start over."
            )


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= _flat(item, f"{prefix}{key}.") if isinstance(item, Mapping) else {f"{prefix}{key}": item}
    return flat


def _digest(examples: Sequence[TrainingExample]) -> str:
    data = json.dumps([asdict(example) for example in examples], ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(data.encode("utf-8")).hexdigest()


def _as_read(settings: Mapping[str, Any]) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(json.dumps(settings))
    return read
