"""What the quickstart shows: ticks and a live bar at a terminal, plain lines everywhere else.

Read next: `run.py`, which calls it.
"""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from steps import Progress

SECONDS_BETWEEN_LINES = 15.0


class Display:
    """Shows the steps one after the other; `total` of them."""

    def __init__(self, total: int) -> None:
        self.console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
        self.total, self.number, self.title = total, 0, ""
        self._bar: Bar | None = None
        self._last_line = 0.0

    def say(self, text: str) -> None:
        """A line above the bar."""
        self.console.print(escape(text))

    def begin(self, title: str) -> None:
        """The next step begins."""
        self.number, self.title = self.number + 1, title
        self._last_line = time.monotonic()
        if not self.console.is_terminal:
            self.say(f"[{self.number}/{self.total}] {title} ...")
            return
        # No refresh thread: child processes are started by a process with one thread.
        self._bar = Bar(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            console=self.console,
            transient=True,
            auto_refresh=False,
        )
        self._bar.add_task(f"{self._place()} {title}", total=None, state="")
        self._bar.start()

    def watch(self, progress: Progress | None) -> None:
        """Called often while a step runs."""
        if self._bar is not None:
            task = self._bar.task_ids[0]
            if progress is not None:
                state = f"iteration {progress.iteration}/{progress.total}  loss {progress.loss:.3f}"
                self._bar.update(task, completed=progress.iteration, total=progress.total, state=state)
            self._bar.refresh()
        elif progress is not None and time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            self.say(f"      iteration {progress.iteration}/{progress.total}, loss {progress.loss:.3f}")

    def end(self, note: str) -> None:
        """The step is finished; `note` says how."""
        self._stop_bar()
        if self.console.is_terminal:
            self.console.print(f"[green]✔[/] {self._place()} {escape(self.title)} [dim]{escape(note)}[/]")
        else:
            self.say(f"[{self.number}/{self.total}] {self.title}: {note}")

    def fail(self, message: str) -> None:
        """The step failed; `message` has all that the reader needs."""
        self._stop_bar()
        self.console.print(f"[red]✘ {self._place()} {escape(self.title)}[/]\n{escape(message)}")

    def _place(self) -> str:
        return f"{self.number}/{self.total}"

    def _stop_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
