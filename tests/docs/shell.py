"""The shell lines of pages: real `cliffscope` commands on small data, and the few others that pages may use."""

import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import typer

from interp.cli.app import app
from tests.cli.forks import Forks
from tests.docs.blocks import ROOT

SMALLER: dict[tuple[str, ...], tuple[str, ...]] = {
    ("evaluate",): ("--limit", "3"),
    ("heads", "cascade"): ("--limit", "8"),
    ("heads", "curve"): (
        *("--counts", "2", "--random-sets", "2", "--random-answered", "1", "--prompts", "2"),
        *("--limit", "8", "--max-new-tokens", "200"),
    ),
    ("heads", "rank"): ("--limit", "12"),
    ("probe", "sweep"): ("--shuffles", "1"),
    ("repair",): ("--epochs", "1"),
    ("rollout",): ("--limit", "4"),
    ("sae", "rank"): ("--shuffles", "199"),
    ("sae", "steer"): ("--limit", "2", "--max-new-tokens", "40"),
    ("sae", "train"): ("--steps", "20", "--width", "64"),
    ("steer", "align"): ("--steps", "3", "--pairs", "16"),
    ("steer", "apart"): ("--no-steer",),
    ("steer", "apply"): ("--limit", "4"),
    ("steer", "check"): ("--pairs", "16"),
    ("steer", "choose"): ("--limit", "4"),
    ("steer", "sweep"): ("--limit", "3", "--controls", "1", "--alphas", "1", "--max-new-tokens", "200"),
}
"""What is put behind a command so that it takes a second: of an option given twice the last counts."""

OUTPUTS = ("--out", "--table", "--page")
"""Options that name a file or folder to be written."""


def lines_of(text: str) -> list[list[str]]:
    """The commands of a block as words: comments off, continued lines joined."""
    joined = re.sub(r"\\\n\s*", " ", text)
    return [words for line in joined.splitlines() if (words := shlex.split(line, comments=True))]


def split_command(words: list[str]) -> tuple[tuple[str, ...], Any, list[str]]:
    """The command's path, the command, and its arguments, of words without `cliffscope`."""
    command: Any = typer.main.get_command(app)
    path: tuple[str, ...] = ()
    while hasattr(command, "commands") and not (path and words[:1] and words[0].startswith("-")):
        assert words and words[0] in command.commands, f"no command cliffscope {' '.join([*path, *words[:1]])}"
        path, command, words = (*path, words[0]), command.commands[words[0]], words[1:]
    return path, command, words


def check_options(words: list[str]) -> None:
    """Parses a command as it would be, without running it: an unknown or missing option raises."""
    path, command, rest = split_command(words[1:])
    command.make_context(" ".join(path), list(rest))


def check_line(words: list[str]) -> None:
    """What can be said of a line that is not run."""
    match words:
        case ["cliffscope", *_]:
            check_options(words)
        case ["make", *targets]:
            makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
            assert targets and all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets), words
        case [".venv/bin/python" | "python", script, *_] if script.endswith(".py"):
            compile((ROOT / script).read_text(encoding="utf-8"), script, "exec")
        case ["torchrun", *_] if "interp.cli" in words:
            check_options(["cliffscope", *words[words.index("interp.cli") + 1 :]])
        case ["cat", *files, ">", _]:
            assert files
        case _:
            raise AssertionError(f"a page tells to run {words[0]!r}, and nothing here knows what that is")


def run_line(words: list[str], folder: Path, forks: Forks) -> str:
    """Runs a line in a folder and returns what it printed; raises if it fails or writes less than it says."""
    words = ["organism:cliff" if word == "MODEL" else word for word in words]
    match words:
        case ["cliffscope", *arguments]:
            path, _, _ = split_command(arguments)
            done = forks.run(*arguments, *SMALLER.get(path, ()), cwd=folder)
            assert done.code == 0, f"{shlex.join(words)}\n{done.stderr}"
            for option, value in pairwise(arguments):
                if option in OUTPUTS and not value.startswith("--"):
                    assert (folder / value).exists(), f"{shlex.join(words)}: {value} was not written"
            return done.stdout
        case ["cat", *files, ">", out]:
            joined = b"".join((folder / name).read_bytes() for name in files)
            # What SMALLER left of the rollouts is too little to go on with: a file of the starter's stays.
            if not (folder / out).exists():
                (folder / out).write_bytes(joined)
            return ""
    raise AssertionError(f"{shlex.join(words)}: cannot be run here; say why in a comment `not run:` before the block")
