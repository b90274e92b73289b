"""The progress bar: on a terminal with throughput and time left, nothing when piped."""

import os
import pty
import re
import subprocess
import sys

SCRIPT = """
import sys, time
from interp.progress import progress
with progress("Generating", 20, "prompts", done=5) as bar:
    for _ in range(15):
        time.sleep(0.02)
        bar.advance(1)
print("rich" in sys.modules)
"""


def test_piped_it_writes_nothing_and_imports_nothing() -> None:
    job = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=60)
    assert (job.stdout, job.stderr) == ("False\n", "")


def test_on_a_terminal_it_shows_count_throughput_and_time_left() -> None:
    main, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "160"}
    environment.pop("NO_COLOR", None)
    job = subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=terminal, env=environment)
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
    output, _ = job.communicate(timeout=60)
    assert output == b"True\n"  # Nothing but the program's own on standard output.
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    last = [line for line in text.splitlines() if "Generating" in line][-1]
    assert "20/20" in last and "left" in last and "0:00:00" in last
    # 15 items at 0.02 s each: what was done before does not count.
    speed = float(re.search(r"([\d.,]+) prompts/s", last).group(1))  # type: ignore[union-attr]
    assert 10 < speed < 51


def test_the_bar_ends_when_the_block_fails() -> None:
    script = "from interp.progress import progress\nwith progress('x', 2) as bar:\n    raise KeyError('mine')"
    job = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert job.returncode == 1 and job.stderr.strip().endswith("KeyError: 'mine'")
