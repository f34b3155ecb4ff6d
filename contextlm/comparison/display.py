"""How far a study is: a bar for all of it and one for each running job at a terminal, plain lines elsewhere."""

from __future__ import annotations

import datetime
import time
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from contextlm.comparison.runs import Run

SECONDS_BETWEEN_LINES = 60.0


class Display:
    """Shows `runs`, those that are to be trained now; a context manager.

    The time left is the work left at the pace of this call, work being iterations times FLOPs.
    """

    def __init__(self, runs: Sequence[Run], console: Console) -> None:
        self.console = console
        self.left = {run.name: run for run in runs}
        self.total = sum(_work(run, run.iterations) for run in runs)
        self.at_start = sum(_work(run, run.saved_iteration()) for run in runs)
        self.done = 0.0  # by runs that have ended
        self.running: dict[str, TaskID | None] = {}
        self.started = self.last_line = time.monotonic()
        self.bars: Progress | None = None
        if console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[state]}"))
            # No refresh thread: child processes are started by a process with one thread.
            self.bars = Progress(*columns, console=console, transient=True, auto_refresh=False)
            self.all = self.bars.add_task("all runs", total=self.total, state="")

    def __enter__(self) -> Display:
        if self.bars is not None:
            self.bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.bars is not None:
            self.bars.stop()

    def say(self, text: str) -> None:
        """A line above the bars."""
        self.console.print(escape(text))

    def begin(self, name: str) -> None:
        """A run begins, or continues."""
        run = self.left[name]
        task = None
        if self.bars is not None:
            task = self.bars.add_task(escape(name), total=run.iterations, state="")
        self.running[name] = task
        if (saved := run.saved_iteration()) > 0:
            self.say(f"{name}: continues from iteration {saved} of {run.iterations}")

    def end(self, name: str, words: str) -> None:
        """A run has ended; `words` say how."""
        run = self.left.pop(name)
        self.done += _work(run, run.iterations)  # a failed one is no longer waited for
        task = self.running.pop(name)
        if self.bars is not None and task is not None:
            self.bars.remove_task(task)
        self.say(f"{name}: {words}; {len(self.left)} to go{self._time_left(self._work_done())}")

    def watch(self) -> None:
        """Called often."""
        if self.bars is None and time.monotonic() - self.last_line < SECONDS_BETWEEN_LINES:
            return
        self.last_line = time.monotonic()
        done = self._work_done()
        state = f"{done / max(self.total, 1):.0%}{self._time_left(done)}"
        iterations = {name: self.left[name].latest_iteration() for name in self.running}
        if self.bars is None:
            if iterations:
                places = (f"{name} {done}/{self.left[name].iterations}" for name, done in iterations.items())
                self.say(f"{', '.join(places)}; {state}")
            return
        self.bars.update(self.all, completed=done, state=state)
        for name, iteration in iterations.items():
            task = self.running[name]
            assert task is not None
            self.bars.update(task, completed=iteration, state=f"{iteration}/{self.left[name].iterations}")
        self.bars.refresh()

    def _work_done(self) -> float:
        running = (_work(run, run.latest_iteration()) for name, run in self.left.items() if name in self.running)
        waiting = (_work(run, run.saved_iteration()) for name, run in self.left.items() if name not in self.running)
        return self.done + sum(running) + sum(waiting)

    def _time_left(self, done: float) -> str:
        now = done - self.at_start
        if now <= 0 or done >= self.total:
            return ""
        seconds = (self.total - done) / now * (time.monotonic() - self.started)
        return f", about {duration(seconds)} left"


def duration(seconds: float) -> str:
    """Hours, minutes, seconds."""
    return str(datetime.timedelta(seconds=round(seconds)))


def _work(run: Run, iterations: int) -> float:
    return min(iterations, run.iterations) * run.arm.flops_per_token
