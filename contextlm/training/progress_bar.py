"""How far the run is, as a bar at a terminal; elsewhere the log lines are enough."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

REFRESH_SECONDS = 0.2


class ProgressBar:
    """A bar of iterations on stderr; lines are printed above it.

    Args:
        total: iterations of the whole run.
        console: where to draw; stderr if not given. Nothing is drawn where it is no terminal.
        enabled: False draws nothing anywhere.
    """

    def __init__(self, total: int, console: Console | None = None, *, enabled: bool = True) -> None:
        self.console = Console(stderr=True) if console is None else console
        self.total, self.done = total, 0
        self.enabled = enabled and self.console.is_terminal
        self.bar: Progress | None = None
        self.task = TaskID(0)
        self.refreshed = 0.0

    def show(self, done: int) -> None:
        """So many iterations are done; drawn a few times a second at most."""
        self.done = done
        if self.enabled and time.monotonic() - self.refreshed >= REFRESH_SECONDS:
            self._draw()

    def print(self, text: str) -> None:
        """Print a line to stdout; a bar that is there makes room and comes back below it."""
        was_there = self.bar is not None
        if self.bar is not None:
            self.bar.stop()
        print(text, flush=True)
        if self.bar is not None and was_there:
            self.bar.start()

    def close(self) -> None:
        """Remove the bar."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def _draw(self) -> None:
        if self.bar is None:
            columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            # No thread of its own; what others print is theirs, and stdout may be a file.
            self.bar = Progress(
                *columns,
                console=self.console,
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self.task = self.bar.add_task("", total=self.total, completed=self.done)
            self.bar.start()
        self.bar.update(self.task, completed=self.done, refresh=True)
        self.refreshed = time.monotonic()
