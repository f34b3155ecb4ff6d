"""Shows how far preprocessing is: a bar at a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TextIO

from contextlm.data.preprocessing import Progress

if TYPE_CHECKING:
    import rich.progress

PLAIN_SECONDS = 1.0
BAR_SECONDS = 0.1


class ProgressDisplay:
    """A context manager whose `update` is given to `preprocess`.

    Args:
        log_interval: documents between plain lines; a line also waits a second for the one before it.
        stream: where to write; a bar is drawn if it is a terminal.
    """

    def __init__(self, log_interval: int, stream: TextIO) -> None:
        self._log_interval = log_interval
        self._stream = stream
        self._bar: rich.progress.Progress | None = None
        self._task: rich.progress.TaskID | None = None
        self._next_document = log_interval
        self._last_shown = 0.0

    def __enter__(self) -> ProgressDisplay:
        if self._stream.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                BarColumn(),
                TextColumn("{task.percentage:3.0f}% {task.description}"),
                TimeRemainingColumn(),
                console=Console(file=self._stream),
                transient=True,
                auto_refresh=False,  # no thread: worker processes can then be copies of this one
            )
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, progress: Progress) -> None:
        """Show `progress`."""
        if self._bar is not None:
            if self._task is None:
                self._task = self._bar.add_task("", total=progress.total_bytes or None)
            if time.monotonic() - self._last_shown >= BAR_SECONDS:
                self._last_shown = time.monotonic()
                self._bar.update(self._task, completed=progress.read_bytes, description=describe(progress))
                self._bar.refresh()
        elif progress.documents >= self._next_document and time.monotonic() - self._last_shown >= PLAIN_SECONDS:
            self._next_document = progress.documents + self._log_interval
            self._last_shown = time.monotonic()
            total = progress.total_bytes
            share = f"{100 * progress.read_bytes / total:3.0f}% " if total else ""
            print(f"{share}{describe(progress)}", file=self._stream, flush=True)


def describe(progress: Progress) -> str:
    """Counts and speeds in one line; MB are 10^6 bytes of input. No speeds of what took no time."""
    rejected = f", {progress.rejected:,} left out" if progress.rejected else ""
    counts = f"{progress.documents:,} documents{rejected}, {progress.tokens:,} tokens"
    if not progress.seconds:
        return counts
    return (
        f"{counts}, {progress.read_bytes / progress.seconds / 1e6:.1f} MB/s, "
        f"{progress.tokens / progress.seconds:,.0f} tokens/s"
    )
