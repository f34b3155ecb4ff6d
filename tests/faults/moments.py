"""When a fault strikes: drawn from the trial's seed, in time, in iterations or aimed at a save."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from pathlib import Path

from tests.faults.job import Job
from tests.faults.setting import ITERATIONS, SAVE_INTERVAL
from tests.faults.verdict import TRACKER


@dataclass(frozen=True)
class Moment:
    """After `event` has happened, and then so many seconds.

    Attributes:
        event: "start"; "iteration", the `number`th is told; "save", that of iteration `number` has begun; "files", it
            has some; "tracker", it is about to be replaced.
    """

    event: str
    number: int
    seconds: float

    def wait(self, job: Job, folder: Path) -> bool:
        """Whether it came before the job's end."""
        while not self._has_come(folder):
            if job.poll() is not None:
                return False
            time.sleep(0.0005)
        time.sleep(self.seconds)
        return job.poll() is None

    def _has_come(self, folder: Path) -> bool:
        temporary = folder / f"iter_{self.number:07d}.tmp"
        if self.event == "start":
            return True
        if self.event == "iteration":
            return _lines(folder) >= self.number
        if self.event == "save":
            return temporary.exists() or _has(folder, self.number)
        if self.event == "files":
            return len(list(temporary.glob("*"))) >= 3 or _has(folder, self.number)
        return (folder / f"{TRACKER}.part").exists() or _has(folder, self.number)


def draw(dice: random.Random, seconds_of_a_run: float) -> Moment:
    """Half of the moments are inside a save, which takes a small part of the time."""
    event = dice.choice(("start", "iteration", "save", "save", "files", "tracker"))
    save = dice.randrange(SAVE_INTERVAL, ITERATIONS + 1, SAVE_INTERVAL)
    if event == "start":
        return Moment(event, 0, dice.uniform(0, seconds_of_a_run))
    if event == "iteration":
        return Moment(event, dice.randrange(1, ITERATIONS), dice.uniform(0, 0.1))
    return Moment(event, save, dice.choice((0.0, dice.uniform(0, 0.05), dice.uniform(0, 0.2))))


def hit(folder: Path) -> str:
    """What a run was at, by what lies in its folder."""
    temporary = sorted(folder.glob("iter_*.tmp"))
    newest = max((int(path.name[5:]) for path in folder.glob("iter_???????")), default=0)
    if temporary:
        names = {path.name for path in temporary[-1].glob("*")}
        if "manifest.json" in names:  # it is the last
            return "save: complete, without its name"
        return "save: files are written" if names else "save: begun"
    tracker = folder / TRACKER
    if newest and (not tracker.exists() or tracker.read_text().strip() != str(newest)):
        return "save: has its name, tracker before it"
    if newest == ITERATIONS:
        return "after the last save"
    lines = _lines(folder)
    return f"between saves, after {newest}" if newest else ("before the first save" if lines else "start-up")


def _has(folder: Path, iteration: int) -> bool:
    return (folder / f"iter_{iteration:07d}").exists()


def _lines(folder: Path) -> int:
    try:
        return (folder / "metrics.jsonl").read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0
