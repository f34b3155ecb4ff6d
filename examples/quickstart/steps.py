"""Runs commands once: marks of what is finished, one log per step, nothing left running.

A step is finished when its mark says so and what it makes is there. The mark holds a digest of the command
and of all that it builds on, so changed settings repeat exactly the steps they concern. A step that was
killed is started again; training then resumes from its last checkpoint. Read next: `display.py`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from contextlm.child_processes import child, tail

ITERATION = re.compile(r"iteration\s+(\d+)/\s*(\d+) \|.*?lm loss: ([-+.\dEe]+|nan|inf)", re.IGNORECASE)


@dataclass(frozen=True)
class Step:
    """One command of the job.

    Attributes:
        name: names the log and the mark.
        title: what the reader of the screen sees.
        command: program and arguments, run in the checkout.
        makes: files or folders that are there afterwards; removed before the step begins with other settings.
        needs: names of the steps whose results this one reads.
        reaches: (tracker file, iteration): training that got there was finished before it was killed.
        variables: environment variables of the command.
    """

    name: str
    title: str
    command: tuple[str, ...]
    makes: tuple[Path, ...] = ()
    needs: tuple[str, ...] = ()
    reaches: tuple[Path, int] | None = None
    variables: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Progress:
    """Where a training run stands, by its last log line."""

    iteration: int
    total: int
    loss: float


class StepFailed(Exception):
    """A command ended with another status than 0."""

    def __init__(self, step: Step, status: int, log: Path) -> None:
        super().__init__(f"{step.title}: exit status {status}")
        self.step, self.log = step, log


def latest_progress(log_text: str) -> Progress | None:
    """The last training log line in `log_text`, if there is one."""
    found = ITERATION.findall(log_text)
    return Progress(int(found[-1][0]), int(found[-1][1]), float(found[-1][2])) if found else None


class StepRunner:
    """Runs the steps of one job, whose marks and logs lie under `folder`; commands run in `checkout`."""

    def __init__(self, steps: list[Step], folder: Path, checkout: Path) -> None:
        self.steps, self.folder, self.checkout = steps, folder, checkout
        self._digests: dict[str, str] = {}
        for step in steps:  # in order, so what a step needs has its digest already
            parts = [sys.version, *step.command, *(self._digests[name] for name in step.needs)]
            self._digests[step.name] = hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def log(self, step: Step) -> Path:
        """The file with all that the step's command printed."""
        return self.folder / "logs" / f"{step.name}.log"

    def seconds(self, step: Step) -> float | None:
        """How long the finished step took; None if it is not finished."""
        mark = self._mark(step)
        finished = mark.get("finished") and mark.get("digest") == self._digests[step.name]
        return float(mark["seconds"]) if finished and all(path.exists() for path in step.makes) else None

    def run(self, step: Step, watch: Callable[[Progress | None], None]) -> float:
        """Runs the step's command to its end and returns the seconds it took.

        Args:
            watch: called a few times a second with the latest progress.

        Raises:
            StepFailed: the command failed.
        """
        started = time.monotonic()
        if self._mark(step).get("digest") != self._digests[step.name]:
            for path in step.makes:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        for later in self._built_on(step):
            self._mark_file(later).unlink(missing_ok=True)
        self._write_mark(step, finished=False, seconds=0.0)
        if not self._has_reached(step):
            self._run_command(step, watch)
        missing = [str(path) for path in step.makes if not path.exists()]
        if missing:
            raise RuntimeError(f"{step.title}: the command succeeded, but did not write {', '.join(missing)}")
        seconds = time.monotonic() - started
        self._write_mark(step, finished=True, seconds=seconds)
        return seconds

    def _run_command(self, step: Step, watch: Callable[[Progress | None], None]) -> None:
        log = self.log(step)
        log.parent.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", **step.variables}
        with log.open("wb") as output, child(step.command, self.checkout, output, environment) as process:
            while process.poll() is None:
                watch(latest_progress(tail(log)))
                time.sleep(0.1)
        watch(latest_progress(tail(log)))
        if process.returncode != 0:
            raise StepFailed(step, process.returncode, log)

    def _built_on(self, step: Step) -> list[Step]:
        """The steps that read the step's results, or results made from them."""
        names = {step.name}
        found = []
        for other in self.steps:
            if names & set(other.needs):
                names.add(other.name)
                found.append(other)
        return found

    def _has_reached(self, step: Step) -> bool:
        if step.reaches is None:
            return False
        tracker, iteration = step.reaches
        with contextlib.suppress(OSError, ValueError):
            return int(tracker.read_text()) >= iteration
        return False

    def _mark_file(self, step: Step) -> Path:
        return self.folder / "steps" / f"{step.name}.json"

    def _mark(self, step: Step) -> dict:
        with contextlib.suppress(OSError, ValueError):
            return json.loads(self._mark_file(step).read_text())
        return {}

    def _write_mark(self, step: Step, *, finished: bool, seconds: float) -> None:
        file = self._mark_file(step)
        file.parent.mkdir(parents=True, exist_ok=True)
        content = {"digest": self._digests[step.name], "finished": finished, "seconds": round(seconds, 1)}
        unfinished = file.with_suffix(".tmp")
        unfinished.write_text(json.dumps(content))
        os.replace(unfinished, file)
