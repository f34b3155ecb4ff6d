"""Runs commands, a few at a time, and tells how each ended; when it is stopped, so are they."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from contextlm.child_processes import child

POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Job:
    """One command.

    Attributes:
        folder: where it runs.
        log: file for what it prints; a command that continues adds to it.
    """

    name: str
    command: tuple[str, ...]
    folder: Path
    log: Path


def run_jobs(
    jobs: Sequence[Job],
    at_once: int,
    started: Callable[[Job], None],
    ended: Callable[[Job, int], None],
    watch: Callable[[], None],
) -> None:
    """Run all jobs in order, `at_once` at a time; one that fails does not keep the others from running.

    Args:
        started: called before each.
        ended: called with each and its exit status.
        watch: called a few times a second.
    """
    waiting = list(jobs)
    running: dict[Job, tuple[subprocess.Popen[bytes], contextlib.ExitStack]] = {}
    environment = _environment(at_once)
    with contextlib.ExitStack() as all_of_them:
        while waiting or running:
            while waiting and len(running) < at_once:
                job = waiting.pop(0)
                started(job)
                own = all_of_them.enter_context(contextlib.ExitStack())
                job.log.parent.mkdir(parents=True, exist_ok=True)
                output = own.enter_context(job.log.open("ab"))
                running[job] = own.enter_context(child(job.command, job.folder, output, environment)), own
            for job, (process, own) in list(running.items()):
                if process.poll() is not None:
                    del running[job]
                    own.close()
                    ended(job, process.returncode)
            watch()
            if running:
                time.sleep(POLL_SECONDS)


def _environment(at_once: int) -> dict[str, str]:
    """Each job gets its share of the cores: more threads than cores are many times slower."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {"OMP_NUM_THREADS": str(max(1, cores // at_once)), **os.environ, "PYTHONUNBUFFERED": "1"}
