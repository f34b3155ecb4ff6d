"""Conducts trials, some at once, each in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.faults import processes
from tests.faults.kinds import KINDS
from tests.faults.setting import Setting
from tests.faults.table import is_good, name_of
from tests.faults.trial import Trial, conduct

SECONDS_OF_A_TRIAL = 420.0


class Trials:
    """Iterates over the results of the trials, in the order in which they end.

    Each is a process forked from this one, which has imported everything and has one thread.
    """

    def __init__(self, setting: Setting, planned: list[tuple[str, int, str | None]], jobs: int, keep: bool) -> None:
        self._setting, self._planned, self._jobs, self._keep = setting, list(planned), jobs, keep
        self._running: dict[int, tuple[Trial, float]] = {}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while self._planned or self._running:
            while self._planned and len(self._running) < self._jobs:
                self._start(*self._planned.pop(0))
            yield from self._ended()
            time.sleep(0.02)

    def _start(self, kind: str, seed: int, control: str | None) -> None:
        trial = Trial(self._setting, kind, seed, self._setting.folder / name_of(kind, seed, control), control=control)
        trial.folder.mkdir()
        if (process := os.fork()) == 0:
            try:
                os.setsid()  # what ends the soak's group lets us end what is ours
                processes.follow_the_parent()
                processes.adopt_orphans()
                result = conduct(trial, KINDS[kind].fault)
                (trial.folder / "result.json").write_text(json.dumps(result))
            finally:
                os._exit(0)
        self._running[process] = (trial, time.monotonic())

    def _ended(self) -> Iterator[dict[str, Any]]:
        for process, (trial, began) in list(self._running.items()):
            if time.monotonic() - began > SECONDS_OF_A_TRIAL:
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)
            elif not os.waitpid(process, os.WNOHANG)[0]:
                continue
            del self._running[process]
            path = trial.folder / "result.json"
            result = json.loads(path.read_text()) if path.exists() else asdict(trial.result) | {"problem": "no verdict"}
            unmount(trial.folder)
            if is_good(result) and not self._keep:
                shutil.rmtree(trial.folder)
            yield result


def unmount(folder: Path) -> None:
    """What a trial has mounted below its folder."""
    for line in Path("/proc/mounts").read_text().splitlines():
        if line.split()[1].startswith(f"{folder}/"):
            os.system(f"umount -l {line.split()[1]}")
