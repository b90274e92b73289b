"""The `cliffscope` command in processes of its own, without paying seconds of imports for each.

Run as a script it imports what the commands import, and then forks for every request: each run is a real process with
its own standard streams, exit code, working folder and limits, and can be killed. `Forks` is the tests' side of it.
"""

import contextlib
import functools
import gc
import importlib
import io
import json
import os
import resource
import selectors
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import typer.main

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Done:
    """A run that ended; `code` is negative if a signal ended it."""

    code: int
    stdout: str
    stderr: str


class Run:
    """A run that may still go on."""

    def __init__(self, forks: "Forks", pid: int) -> None:
        self.pid, self._forks = pid, forks

    def kill(self) -> None:
        """Sends SIGKILL. Safe while the run is not waited for: it stays a zombie until then."""
        os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> Done:
        self._forks.send({"reap": self.pid})
        answer = self._forks.receive()
        return Done(answer["code"], answer["stdout"], answer["stderr"])


class Forks:
    """Starts runs; made once for all tests."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        environment["TOKENIZERS_PARALLELISM"] = "false"
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.cli.forks"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=ROOT,
        )

    def start(self, *arguments: object, cwd: Path | None = None, file_size: int | None = None) -> Run:
        """Starts `cliffscope` with arguments; `file_size` limits every file that it writes, in bytes."""
        argv = [str(argument) for argument in arguments]
        self.send({"argv": argv, "cwd": str(cwd or ROOT), "file_size": file_size})
        return Run(self, self.receive()["pid"])

    def run(self, *arguments: object, cwd: Path | None = None, file_size: int | None = None) -> Done:
        return self.start(*arguments, cwd=cwd, file_size=file_size).wait()

    def preload(self, *names: str) -> None:
        """Imports what the commands of some tests alone need, once instead of in every run."""
        self.send({"import": names})
        self.receive()

    def close(self) -> None:
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait(timeout=60)
        self._server.stdout.close()

    def send(self, request: dict[str, Any]) -> None:
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()

    def receive(self) -> Any:
        assert self._server.stdout is not None
        return json.loads(self._server.stdout.readline())


def serve() -> None:
    """Answers requests on standard input until it ends."""
    gc.disable()
    _import_all()
    _warm_up()
    _settle()
    answers = os.fdopen(os.dup(1), "w")
    children: dict[int, dict[str, Any]] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if "argv" in request:
            pid, streams = _fork(request)
            children[pid] = {"streams": streams}
            # Read at once, so that a child that says much never waits for room.
            children[pid]["thread"] = threading.Thread(target=_read, args=(children[pid],))
            children[pid]["thread"].start()
            answer: dict[str, Any] = {"pid": pid}
        elif "import" in request:
            for name in request["import"]:
                importlib.import_module(name)
            _settle()
            answer = {}
        else:
            child = children.pop(request["reap"])
            _, status = os.waitpid(request["reap"], 0)
            child["thread"].join()
            answer = {"code": os.waitstatus_to_exitcode(status), **child["read"]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


HEAVY = (
    "circuits.ablation_scores",
    "circuits.attention",
    "circuits.attribution",
    "circuits.cascade",
    "circuits.gradient",
    "circuits.head_files",
    "circuits.interchange",
    "circuits.mask",
    "circuits.rank",
    "datasets",
    "interp.display.page",
    "interp.models.inspection",
    "plotly.graph_objects",
    "sae_lens",
    "transformer_lens.factories.architecture_adapter_factory",
    "transformer_lens.model_bridge.sources",
    "transformers.models.qwen3.modeling_qwen3",
    "interp.cli.session",
    "interp.rollouts.model_generator",
    "interp.organisms",
    "interventions.masks.folding",
    "interventions.masks.head_mask",
    "interventions.masks.proof",
    "probes.cliff_files",
    "probes.cliff_run",
    "probes.model_sweep",
    "probes.scores",
    "probes.sweep_figure",
)


def _import_all() -> None:
    for name in HEAVY:
        importlib.import_module(name)
    import torch

    # The pool of threads does not survive a fork.
    torch.set_num_threads(1)


def _warm_up() -> None:
    """What a process does once, however many models it loads and pages it writes. No setting changes."""
    import plotly.graph_objects as go
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    from interp.cli.app import app
    from interp.models.hooked_model import HookedModel

    get_checkpoint_conversion_mapping("qwen3")
    with contextlib.redirect_stderr(io.StringIO()):
        HookedModel.load("organism:aligned", device="cpu")
    typer.main.get_command = functools.cache(typer.main.get_command)
    typer.main.get_command(app)
    axes = {"title": {"text": "x"}, "range": [0, 1]}
    figure = go.Figure([go.Scatter(x=[0], y=[0]), go.Heatmap(z=[[0]]), go.Bar(y=[0])], {"xaxis": axes, "yaxis": axes})
    figure.add_hline(y=0)
    figure.to_html(include_plotlyjs=True)


def _settle() -> None:
    """Lets the children's garbage collector pass over what is here: every page that it touched would be copied."""
    gc.collect()
    gc.freeze()


def _fork(request: dict[str, Any]) -> tuple[int, dict[str, int]]:
    ends = {"stdout": os.pipe(), "stderr": os.pipe()}
    pid = os.fork()
    if pid == 0:
        _become_command(request, ends)
    for _, write in ends.values():
        os.close(write)
    return pid, {name: read for name, (read, _) in ends.items()}


def _become_command(request: dict[str, Any], ends: dict[str, tuple[int, int]]) -> NoReturn:
    code = 1
    gc.enable()
    try:
        # Tests that run in a shell's background inherit a SIGINT that is ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(ends["stdout"][1], 1)
        os.dup2(ends["stderr"][1], 2)
        for read, write in ends.values():
            os.close(read)
            os.close(write)
        os.chdir(request["cwd"])
        if request["file_size"] is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_size"],) * 2)
        sys.argv = ["cliffscope", *request["argv"]]
        from interp.cli import main

        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        except BaseException:
            sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _read(child: dict[str, Any]) -> None:
    found: dict[str, bytes] = dict.fromkeys(child["streams"], b"")
    with selectors.DefaultSelector() as waiting:
        for name, stream in child["streams"].items():
            waiting.register(stream, selectors.EVENT_READ, name)
        while waiting.get_map():
            for key, _ in waiting.select():
                data = os.read(key.fd, 65536)
                found[key.data] += data
                if not data:
                    waiting.unregister(key.fd)
                    os.close(key.fd)
    child["read"] = {name: data.decode("utf-8", "replace") for name, data in found.items()}


if __name__ == "__main__":
    serve()
