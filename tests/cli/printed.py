"""What a command printed, checked for its form."""

import json
from typing import Any

import pytest

from tests.cli.forks import Done


def payload(done: Done) -> dict[str, Any]:
    """The one object that --json prints; there is nothing else on either stream."""
    assert done.code == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.endswith("}\n") and done.stdout.count("\n") == 1
    found = json.loads(done.stdout, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert isinstance(found, dict)
    return found


def table(done: Done) -> str:
    """The text for people: nothing on standard error, no trailing spaces, no colour codes."""
    assert done.code == 0, done.stderr
    assert done.stderr == "" and "\x1b" not in done.stdout
    assert done.stdout.endswith("\n")
    for line in done.stdout.splitlines():
        assert line == line.rstrip()
    return done.stdout


def refusal(done: Done) -> str:
    """The one line of an error; nothing else is said, and the exit code is 2."""
    assert done.code == 2 and done.stdout == "", done.stderr
    assert done.stderr.startswith("cliffscope: error: ")
    assert done.stderr.endswith("\n") and done.stderr.count("\n") == 1, done.stderr
    return done.stderr
