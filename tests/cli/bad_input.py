"""What the tables of bad input are made of: cases, ways to spoil good files, and bad checkpoints."""

import json
import shlex
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file

from circuits.head_scores import HeadScores
from interp.rollouts import Rollout, write_rollouts
from interp.tensor_files import read_tensors, write_tensors
from probes.linear import LinearProbe
from tests.cli import material
from tests.cli.forks import Forks
from tests.cli.printed import refusal

Spoil = Callable[[Path], object]


@dataclass(frozen=True)
class Case:
    """What is run, in a shell's notation, and pieces of the message. {tiny}, {nan}, … are checkpoints."""

    name: str
    command: str
    says: Sequence[str]
    spoil: Spoil = lambda folder: None
    file_size: int | None = None

    def check(self, forks: Forks, models: dict[str, str], folder: Path) -> None:
        """Runs it in a folder with good files: one line that says what is wrong, and the disk as it was before."""
        self.spoil(folder)
        before = contents(folder)
        said = refusal(forks.run(*arguments(self.command, models), cwd=folder, file_size=self.file_size))
        for piece in self.says:
            assert piece in said, (piece, said)
        assert contents(folder) == before


def check_usage(command: str, forks: Forks, models: dict[str, str], folder: Path) -> None:
    """Typer words these itself: more lines, but the same exit code and nothing written."""
    before = contents(folder)
    done = forks.run(*arguments(command, models), cwd=folder)
    assert done.code == 2 and done.stdout == "" and "Traceback" not in done.stderr
    assert "--help" in done.stderr
    assert contents(folder) == before


def contents(folder: Path) -> dict[str, bytes | None]:
    """Everything in a folder, hidden files and all."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def arguments(command: str, models: dict[str, str]) -> list[str]:
    """The words of a command, as a shell would split them."""
    return shlex.split(command.format(**models), comments=True)


ROLLOUTS = "--model {tiny} --rollouts rollouts.jsonl"
FIT = f"probe fit {ROLLOUTS} --out out.safetensors"
SWEEP = f"probe sweep {ROLLOUTS} --out sweep"
SCORE = f"probe score {ROLLOUTS} --probe probe.safetensors --out out.parquet"
CLIFF = f"cliff {ROLLOUTS} --probe probe.safetensors --out out.parquet"
ROLLOUT = "rollout --model {tiny} --prompts prompts.csv --out out.jsonl --max-new-tokens 8"
RANK = f"heads rank {ROLLOUTS} --probe probe.safetensors --out out.parquet"
CURVE = f"heads curve {ROLLOUTS} --probe probe.safetensors --heads heads.parquet --out out.parquet"
CASCADE = f"heads cascade {ROLLOUTS} --probe probe.safetensors --head 1.2 --out out.parquet"
ATTENTION = f"heads attention {ROLLOUTS} --head 1.2 --out out.html"
BUILD = "mask build --heads heads.parquet --out out.safetensors"
SHOW = "mask show mask.safetensors"
CHECK = "mask check mask.safetensors --model {tiny}"
STEER_FIT = f"steer fit {ROLLOUTS} --layer 2 --out out.safetensors"
STEER_CHOOSE = (
    f"steer choose {ROLLOUTS} --layers 1 --positions close:-1 --limit 4 --out out.safetensors --table out.parquet"
)
FOLD = "mask fold mask.safetensors --model {tiny} --out folded"

COMMANDS = {"fit": FIT, "sweep": SWEEP, "score": SCORE, "cliff": CLIFF, "rollout": ROLLOUT, "rank": RANK}
PROBE = {"format": "cliffscope.probe", "version": "1", "method": "logistic"}


def on(command: str, model: str) -> str:
    return command.replace("{tiny}", model)


def text(name: str, content: str) -> Spoil:
    return lambda folder: (folder / name).write_text(content, encoding="utf-8")


def octets(name: str, content: bytes) -> Spoil:
    return lambda folder: (folder / name).write_bytes(content)


def line(number: int, content: str, name: str = "rollouts.jsonl") -> Spoil:
    """Replaces a line, counted from 1."""

    def spoil(folder: Path) -> None:
        lines = (folder / name).read_text(encoding="utf-8").splitlines()
        lines[number - 1] = content
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")

    return spoil


def row(number: int, **changed: object) -> Spoil:
    """Changes values of a rollout; a value of `...` takes the key away."""

    def spoil(folder: Path) -> None:
        old = json.loads((folder / "rollouts.jsonl").read_text(encoding="utf-8").splitlines()[number - 1])
        new = {key: value for key, value in {**old, **changed}.items() if value is not ...}
        line(number, json.dumps(new))(folder)

    return spoil


def only(keep: Callable[[Rollout], object], **changed: Any) -> Spoil:
    """Keeps some rollouts, with changed fields."""

    def spoil(folder: Path) -> None:
        kept = [replace(rollout, **changed) for rollout in material.rollouts() if keep(rollout)]
        write_rollouts(folder / "rollouts.jsonl", kept)

    return spoil


def few(refused: int, benign: int) -> Spoil:
    def spoil(folder: Path) -> None:
        made = material.rollouts()
        kept = [r for r in made if r.outcome == "refused"][:refused]
        kept += [r for r in made if r.outcome == "benign"][:benign]
        write_rollouts(folder / "rollouts.jsonl", kept)

    return spoil


def probe(**changed: Any) -> Spoil:
    def spoil(folder: Path) -> None:
        replace(LinearProbe.load(folder / "probe.safetensors"), **changed).save(folder / "probe.safetensors")

    return spoil


def truncated(name: str) -> Spoil:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-40])


def tensors(weight: torch.Tensor, **metadata: str) -> Spoil:
    held = {"weight": weight, "bias": torch.tensor(0.0)}
    return lambda folder: save_file(held, folder / "probe.safetensors", metadata or None)


def heads(**changed: Any) -> Spoil:
    """Changes what a table of heads says of itself."""

    def spoil(folder: Path) -> None:
        replace(HeadScores.load(folder / "heads.parquet"), **changed).save(folder / "heads.parquet")

    return spoil


def nothing_named(folder: Path) -> None:
    """Puts a table in place that explains why it names no head."""
    scores = HeadScores.load(folder / "heads.parquet")
    facts = {**scores.facts, "nothing": "the model answered none of the 5 harmful prompts"}
    replace(scores, table=scores.table.assign(suppresses=False), facts=facts).save(folder / "heads.parquet")


def mask(change: Callable[[torch.Tensor], torch.Tensor] = lambda scale: scale, **metadata: str) -> Spoil:
    """Changes a mask's tensor and metadata, as no one could who builds it."""

    def spoil(folder: Path) -> None:
        held, told = read_tensors(folder / "mask.safetensors")
        write_tensors(folder / "mask.safetensors", {"scale": change(held["scale"])}, {**told, **metadata})

    return spoil


def one_nan(scale: torch.Tensor) -> torch.Tensor:
    scale[1, 1] = float("nan")
    return scale


def renamed(old: str, new: str) -> Spoil:
    return lambda folder: (folder / old).rename(folder / new)


def checkpoints(root: Path, checkpoint: Path) -> dict[str, str]:
    """Makes bad checkpoints in a folder. They and the good one by name, and a port at which nobody listens."""
    material.checkpoint(root / "short", n_ctx=32)
    material.checkpoint(root / "deeper", n_layers=5)
    material.checkpoint(root / "reseeded", seed=1)
    material.checkpoint(root / "untemplated", style="none")
    material.with_nan(checkpoint, root / "nan")
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    unmapped = transformers.HeliumConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2
    )
    material.save(transformers.HeliumForCausalLM(unmapped), tokenizer, root / "unmapped")

    def spoiled(name: str, spoil: Spoil) -> None:
        folder = root / name
        folder.mkdir()
        for file in checkpoint.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        spoil(folder)

    def config(**changed: object) -> Spoil:
        def spoil(folder: Path) -> None:
            old = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            (folder / "config.json").write_text(json.dumps({**old, **changed}), encoding="utf-8")

        return spoil

    def pickled(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        torch.save({"a": torch.ones(2)}, folder / "pytorch_model.bin")

    spoiled("weightless", lambda folder: (folder / "model.safetensors").unlink())
    spoiled("torn", truncated("model.safetensors"))
    spoiled("pickled", pickled)
    spoiled("misfit", config(hidden_size=64))
    spoiled("misconfigured", text("config.json", "{"))
    spoiled("mute", lambda folder: [file.unlink() for file in folder.glob("tokenizer*")])
    spoiled("foreign", config(model_type="never-heard-of", architectures=["NeverForCausalLM"]))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return {"tiny": str(checkpoint), "port": str(port), **{path.name: str(path) for path in root.iterdir()}}
