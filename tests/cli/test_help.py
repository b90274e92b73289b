"""Help: quick, without heavy imports, and with examples that can be run as they stand."""

import re
import resource
import shlex
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from interp.cli.app import app
from tests.cli.forks import Forks

COMMAND = Path(sys.executable).with_name("cliffscope")
HEAVY = ("torch", "transformers", "transformer_lens", "nnsight", "sae_lens", "trl", "plotly", "pandas", "datasets")

COMMON = {"--device", "--dtype", "--seed", "--json"}
WITHOUT: dict[tuple[str, ...], set[str]] = {
    # What is not random has no seed.
    ("heads", "attention"): {"--seed"},
    ("judge", "run"): {"--seed"},
    ("mask", "build"): {"--seed"},
    ("mask", "check"): {"--seed"},
    ("mask", "fold"): {"--seed"},
    ("sae", "direction"): {"--seed"},
    # What loads no model has no device.
    ("bench", "calibrate"): {"--device", "--dtype"},
    ("compare",): {"--device", "--dtype"},
    ("judge", "agree"): {"--device", "--dtype"},
    ("mask", "show"): {"--seed", "--device", "--dtype"},
    ("organism", "export"): {"--seed", "--device", "--dtype"},
    ("organism", "list"): {"--seed", "--device", "--dtype"},
    ("report",): {"--seed", "--device", "--dtype"},
    # Has --precision: weights are trained in float32 whatever the checkpoint holds.
    ("repair",): {"--dtype"},
    # Trains on the CPU: what comes out must be the same everywhere.
    ("organism", "plant"): {"--device", "--dtype"},
    ("organism", "train"): {"--device", "--dtype"},
}
"""Commands that lack common options, and which."""


def commands(group: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command and group, the whole first."""
    group = group or typer.main.get_command(app)
    yield path, group
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, (*path, name))


ALL = dict(commands())


def example(command: Any) -> list[str]:
    """The words of the example in a command's help."""
    found = re.findall(r"Example: (cliffscope .*?)(?:\n\n|\Z)", command.help, re.DOTALL)
    assert len(found) == 1, command.help
    return shlex.split(found[0])


def is_given(word: str, value: object) -> bool:
    """Whether a parsed value is, or holds, what a word of the command says."""
    if isinstance(value, list | tuple):
        return any(is_given(word, part) for part in value)
    return float(word) == value if isinstance(value, float) and word[:1].isdigit() else word == str(value)


@pytest.mark.parametrize("path", ALL, ids=lambda path: " ".join(path) or "cliffscope")
def test_the_example_is_shown_and_can_be_parsed(path: tuple[str, ...], forks: Forks) -> None:
    shown = forks.run(*path, "--help")
    assert shown.code == 0 and shown.stderr == ""
    words = example(ALL[path])
    assert words[: 1 + len(path)] == ["cliffscope", *path]
    assert " ".join(words) in " ".join(shown.stdout.replace("│", " ").split())
    # As typer parses it, without running it: unknown or missing options raise here.
    command, rest = ALL[()], words[1:]
    while hasattr(command, "commands") and rest[0] in command.commands:
        command, rest = command.commands[rest[0]], rest[1:]
    given = [word for word in rest if not word.startswith("--")]
    values = command.make_context(words[0], rest).params.values()
    assert all(any(is_given(word, value) for value in values) for word in given)


def test_an_unknown_option_in_an_example_would_be_found() -> None:
    with pytest.raises(Exception, match="No such option"):
        ALL[("inspect",)].make_context("inspect", ["--model", "m", "--modle", "m"])


@pytest.mark.parametrize("path", [path for path, command in ALL.items() if not hasattr(command, "commands")])
def test_every_command_has_the_common_options(path: tuple[str, ...]) -> None:
    options = {option for parameter in ALL[path].params for option in parameter.opts}
    assert COMMON & options == COMMON - WITHOUT.get(path, set())
    # Nothing that a person may set goes unexplained.
    for parameter in ALL[path].params:
        assert getattr(parameter, "help", None), parameter.name


def test_exceptions_are_of_commands_that_exist() -> None:
    assert WITHOUT.keys() <= ALL.keys()


def test_no_arguments_show_the_help(forks: Forks) -> None:
    for path in ((), ("probe",), ("heads",), ("mask",), ("organism",)):
        done = forks.run(*path)
        assert "Usage: cliffscope" in done.stdout + done.stderr and done.code in (0, 2)


def seconds_of_children() -> float:
    """Of the processor: how long they had to wait for it is not theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    times = []
    for _ in range(3):
        start = seconds_of_children()
        done = subprocess.run([COMMAND, "--help"], capture_output=True, text=True, check=True)
        times.append(seconds_of_children() - start)
        assert done.stderr == "" and "Usage: cliffscope" in done.stdout
    assert statistics.median(times) < 0.5


@pytest.mark.parametrize(
    "code", ["import interp", "import sys; sys.argv = ['cliffscope', '--help']; import interp.cli; interp.cli.main()"]
)
def test_what_is_not_imported(code: str) -> None:
    told = f"import atexit, sys; atexit.register(lambda: print('modules:', *sys.modules)); {code}"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    loaded = done.stdout.partition("modules:")[2].split()
    assert "interp" in loaded
    assert not {name.partition(".")[0] for name in loaded} & set(HEAVY)
