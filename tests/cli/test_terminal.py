"""What commands look like on a terminal of 80 columns: a progress bar with throughput and time left, wrapped text."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from interp.cli.output import counts, plain, show, table, wrap

COMMAND = Path(sys.executable).with_name("cliffscope")


def on_a_terminal(*words: object, cwd: Path, stdout_too: bool = True) -> tuple[str, str]:
    """What a command shows on a terminal of 80 columns, and what it writes to a piped standard output."""
    main, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES", "NO_COLOR")}
    job = subprocess.Popen(
        [str(COMMAND), *map(str, words)],
        stdin=subprocess.DEVNULL,
        stdout=terminal if stdout_too else subprocess.PIPE,
        stderr=terminal,
        env={**environment, "TERM": "xterm", "OMP_NUM_THREADS": "1"},
        cwd=cwd,
    )
    os.close(terminal)
    shown = b""
    while True:
        try:
            chunk = os.read(main, 65536)
        except OSError:  # The other end was closed.
            break
        if not chunk:
            break
        shown += chunk
    os.close(main)
    piped, _ = job.communicate(timeout=120)
    assert job.returncode == 0, shown
    return shown.decode(), (piped or b"").decode()


def lines(shown: str) -> list[str]:
    """The lines as they were written, without control sequences."""
    return [line for line in re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)) if line.strip()]


@pytest.mark.slow
@pytest.mark.parametrize("as_json", [False, True])
def test_the_bar_and_the_table(checkpoint: Path, data: Path, tmp_path: Path, as_json: bool) -> None:
    words = ("rollout", "--model", checkpoint, "--prompts", data / "prompts.csv", "--out", "r.jsonl")
    words += ("--max-new-tokens", 30, "--batch-size", 8, *(["--json"] if as_json else []))
    shown, piped = on_a_terminal(*words, cwd=tmp_path, stdout_too=not as_json)
    bars = [line for line in lines(shown) if line.startswith("Generating")]
    assert re.search(r"48/48 +[\d.,]+ prompts/s +0:00:\d\d +left +0:00:00", bars[-1]), bars[-1]
    assert all(len(line) <= 80 for line in lines(shown))
    # Nothing else: no bars or notices of the libraries.
    rest = [line for line in lines(shown) if not line.startswith("Generating")]
    if as_json:
        assert rest == [] and piped.startswith("{") and piped.count("\n") == 1
    else:
        assert rest[0].strip() == "Rollouts" and rest[-1].strip() == "Written to r.jsonl." and len(rest) < 10


@pytest.mark.slow
def test_long_text_is_wrapped_between_words(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    words = ("--model", checkpoint, "--rollouts", data / "rollouts.jsonl")
    shown, _ = on_a_terminal("cliff", *words, "--probe", data / "probe.safetensors", "--out", "c.parquet", cwd=tmp_path)
    text = lines(shown)
    # Only a path may be longer than a line.
    assert all(len(line) <= 80 or "/" in line for line in text)
    evidence = " ".join(line.strip() for line in text)
    assert re.search(
        r"No cliff: .*\. Left out: none\. Written to c.layers.parquet, c.json, c.html, c.parquet\.", evidence
    )


def test_tables() -> None:
    pairs = [("a", "one two three four"), ("bb", "x")]
    assert table(pairs) == ["a   one two three four", "bb  x"]
    assert table(pairs, 24) == ["a   one two three four", "bb  x"]
    assert table([("a", "one two three four five six")], 24) == ["a  one two three four", "   five six"]
    grid = [["", "n", "plateau"], ["complied", "1,200", "0.5"], ["benign", "3", "–"]]
    assert table(grid) == ["              n  plateau", "complied  1,200      0.5", "benign        3        –"]
    assert table([]) == []


def test_a_grid_that_is_too_wide_moves_together_and_then_breaks() -> None:
    grid = [["layer", "inst", "close:-2", "close:-1"], ["0", "0.1", "0.2", "0.3"]]
    assert table(grid, 31) == table(grid) == ["layer  inst  close:-2  close:-1", "0       0.1       0.2       0.3"]
    assert table(grid, 30) == table(grid, 28) == ["layer inst close:-2 close:-1", "0      0.1      0.2      0.3"]
    broken = ["layer inst close:-2", "0      0.1      0.2", "", "layer close:-1", "0          0.3"]
    assert table(grid, 27) == table(grid, 19) == broken
    # A column that fits nowhere still stands somewhere.
    heads = [line for line in table(grid, 3) if line.startswith("layer")]
    assert heads == ["layer inst", "layer close:-2", "layer close:-1"]


def test_cells() -> None:
    assert [show(value) for value in (None, float("nan"), 0.12345, 12345, True, "x")] == [
        "–",
        "–",
        "0.123",
        "12,345",
        "True",
        "x",
    ]
    assert wrap("a/very/long/path/without/any/space.parquet", 20) == ["a/very/long/path/without/any/space.parquet"]
    assert counts({}) == "none" and counts({"not judged": 3, "unclosed": 1}) == "3 not judged, 1 unclosed"
    assert plain({"a": (1, float("inf")), 2: Path("p")}) == {"a": [1, None], "2": "p"}
