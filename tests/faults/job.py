"""A running job: its launcher, its ranks, its log."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from tests.cli.programs import environment
from tests.faults import launcher, processes, sabotaged
from tests.faults.preloaded import ROOT


class Failed(AssertionError):
    """A trial went otherwise than it must."""


class Job:
    """Two ranks of `pretrain_contextlm.py`, or so.

    Args:
        words: its options.
        log: takes what it prints.
        ranks: how many.
        sabotage: what goes wrong inside it (`sabotaged.py`).
        torchrun: start it with torchrun itself and so many restarts, which takes seconds.
        like_a_user: file permissions hold for it even where we are root.
    """

    def __init__(
        self,
        words: Sequence[str],
        log: Path,
        ranks: int = 2,
        sabotage: dict[str, Any] | None = None,
        torchrun: int | None = None,
        like_a_user: bool = False,
    ) -> None:
        self.log = log
        self._status: int | None = None
        self._said_before = len(self._all_said())
        self._ranks: list[int] | None = None
        if torchrun is None:
            self.launcher, self._ranks = launcher.fork(words, ranks, log, sabotage, like_a_user)
        else:
            self.launcher = _torchrun(words, ranks, log, sabotage, torchrun)

    @property
    def ranks(self) -> list[int]:
        """Their process ids, by rank; [] while torchrun has not started them."""
        if self._ranks is not None:
            return self._ranks
        found: dict[int, int] = {}
        with contextlib.suppress(psutil.Error):
            for process in psutil.Process(self.launcher).children(recursive=True):
                with contextlib.suppress(psutil.Error, KeyError):
                    found[int(process.environ()["RANK"])] = process.pid
        return [found[rank] for rank in sorted(found)]

    def poll(self) -> int | None:
        """The launcher's exit status, negative for a signal; None while it runs."""
        if self._status is None:
            try:
                gone, status = os.waitpid(self.launcher, os.WNOHANG)
            except ChildProcessError:  # ended with all others
                gone, status = self.launcher, signal.SIGKILL
            self._status = os.waitstatus_to_exitcode(status) if gone else None
        return self._status

    def wait(self, seconds: float) -> int:
        """The status at its end.

        Raises:
            Failed: it does not end.
        """
        end = time.monotonic() + seconds
        while (status := self.poll()) is None:
            if time.monotonic() > end:
                processes.end_all()
                raise Failed(f"still running after {seconds:.0f} s: a hang")
            time.sleep(0.01)
        return status

    def send(self, number: int, *process_ids: int) -> None:
        """A signal, to those of the processes that are there."""
        for process_id in process_ids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process_id, number)

    def kill_all(self) -> None:
        """Launcher and ranks, as when a machine loses its power."""
        self.send(signal.SIGSTOP, self.launcher)  # it must not tell the ranks
        self.send(signal.SIGKILL, *self.ranks, self.launcher)

    def said(self) -> str:
        """What it printed."""
        return self._all_said()[self._said_before :]

    def _all_said(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""


def _torchrun(words: Sequence[str], ranks: int, log: Path, sabotage: dict[str, Any] | None, restarts: int) -> int:
    program = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(ranks))
    options = ("--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "--max-restarts", str(restarts))
    with open(log, "a") as file:
        process = subprocess.Popen(
            [*program, *options, *sabotaged.command(words, sabotage)],
            cwd=ROOT, env=environment(), stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True,
        )  # fmt: skip
    process.returncode = 0  # it is waited for by its number
    return process.pid
