"""A progress bar with throughput and time left, on a terminal; nothing at all when piped."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Bar(Protocol):
    """What is done with a progress bar."""

    def advance(self, amount: int = 1) -> None:
        """Counts `amount` more of the total as done."""
        ...


class _Silent:
    def advance(self, amount: int = 1) -> None:
        """Shows nothing."""


@contextmanager
def progress(label: str, total: int, unit: str = "items", done: int = 0) -> Iterator[Bar]:
    """Shows a bar on standard error while the block runs, if that is a terminal.

    Standard output stays free for results. The throughput counts only what is done within the block, so that
    a resumed job does not look faster than it is.

    Args:
        label: What is going on, such as `Generating`.
        total: How much there is to do.
        unit: What is counted, for the throughput.
        done: How much of the total was done before.

    Yields:
        The bar; call its `advance`.
    """
    if not sys.stderr.isatty():
        yield _Silent()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Speed(ProgressColumn):
        """Items a second; items a minute where that is less than one a second."""

        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            if not speed:
                return Text(f"– {unit}/s", style="progress.data.speed")
            per_second = speed >= 1
            shown = f"{speed if per_second else speed * 60:,.1f} {unit}/{'s' if per_second else 'min'}"
            return Text(shown, style="progress.data.speed")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Speed(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=False),
    )
    # Batches may take a minute each: without a long period the speed would forget the last one.
    with Progress(*columns, console=Console(stderr=True), speed_estimate_period=600) as bars:
        task = bars.add_task(label, total=total, completed=done)

        class Rich:
            def advance(self, amount: int = 1) -> None:
                bars.advance(task, amount)

        yield Rich()
