"""One trial: what a fault needs to start runs, to strike, and to say what came of it."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.faults import moments, processes, verdict
from tests.faults.job import Failed, Job
from tests.faults.setting import LAYOUTS, SECONDS_BOUND, Setting

SECONDS_TO_GO = 20.0  # for what a killed launcher leaves
SECONDS_OF_THE_HANG = 10.0  # of the control, which hangs for good


@dataclass
class Result:
    """What is told of a trial.

    Attributes:
        hit: what the run was at when the fault came.
        outcome: how the run came through, once it has.
        equal: whether every number is the undisturbed run's.
        seconds_to_recover: from the fault to the first iteration after it.
        problem: why it failed; None if it did not.
    """

    kind: str
    seed: int
    layout: str
    control: str | None = None
    layout_and_options: str = ""
    hit: str = "never"
    outcome: str = ""
    equal: bool = False
    final_loss: float | None = None
    seconds_to_recover: float | None = None
    seconds: float = 0.0
    problem: str | None = None


@dataclass
class Trial:
    """Its runs are two ranks each, whose layout the seed draws, as it draws all the rest.

    Attributes:
        more: options of its own.
        data: prefix of a dataset of its own.
        control: what is broken in the run that continues (`controls.py`); the trial must fail.
    """

    setting: Setting
    kind: str
    seed: int
    folder: Path
    dice: random.Random = field(init=False)
    result: Result = field(init=False)
    more: tuple[str, ...] = ()
    data: Path | None = None
    control: str | None = None

    def __post_init__(self) -> None:
        self.dice = random.Random(f"{self.kind} {self.seed}")
        self.result = Result(self.kind, self.seed, self.dice.choice(sorted(LAYOUTS)), self.control)
        self.result.layout_and_options = self.result.layout
        self.struck_at: float | None = None

    @property
    def run(self) -> Path:
        """`--save` of its runs."""
        return self.folder / "run"

    @property
    def told(self) -> Path:
        """Where a sabotage says that it has struck."""
        return self.folder / "struck"

    @contextlib.contextmanager
    def job(self, **options: Any) -> Iterator[Job]:
        """A run's first attempt; whatever happens, nothing of it goes on after the block."""
        if options.get("sabotage"):
            options["sabotage"] = {"rank": None, "told": str(self.told)} | options["sabotage"]
        job = Job(self.words(), self.folder / "log", **options)
        try:
            yield job
            if self.struck_at is None:
                self.struck_at = float(self.told.read_text()) if self.told.exists() else None
            if left := processes.left_over(1.0 if self.control == "orphan" else SECONDS_TO_GO):
                raise Failed(f"{len(left)} processes go on after their job has ended")
        finally:
            processes.end_all()

    def wait(self, job: Job) -> int:
        """Its status, when it has ended."""
        return job.wait(SECONDS_OF_THE_HANG if self.control == "hang" else SECONDS_BOUND)

    def may_save_in_the_background(self) -> None:
        """Half of the trials do."""
        if self.dice.random() < 0.5:
            self.more += ("--async-save",)
            self.result.layout_and_options += " --async-save"

    def moment(self) -> moments.Moment:
        """One of the trial's, drawn."""
        return moments.draw(self.dice, self.setting.seconds(self.result.layout))

    def moment_in_training(self) -> moments.Moment:
        """One of those after the start, which takes torchrun's jobs much longer than the rest."""
        while (moment := self.moment()).event == "start":
            pass
        return moment

    def strike(self, job: Job, *process_ids: int, number: int = signal.SIGKILL) -> None:
        """Send a signal now, and note what it hit."""
        job.send(number, *process_ids)
        self.struck()

    def struck(self, hit: str | None = None) -> None:
        """Note that the fault has come."""
        self.struck_at = time.time()
        self.result.hit = hit or moments.hit(self.run)

    def continues(self, outcome: str = "resumed") -> None:
        """The same command again goes to the end, and all that it leaves is the undisturbed run's."""
        with self.job(sabotage=self.control and {"what": self.control}) as job:
            size, first = None, None
            while job.poll() is None and first is None and self.control is None:
                now = self._size_of_metrics()
                first = time.time() if size is not None and now > size else None
                size = now
                time.sleep(0.005)
            status = self.wait(job)
            if status != 0:
                raise Failed(f"the same command again ended with {status}: {_last_lines(job.said())}")
        record = json.loads((self.run / "exit.json").read_text())
        if record["status"] != 0:
            raise Failed(f"it ended well, but exit.json says {record}")
        if self.struck_at is not None:
            self.result.seconds_to_recover = (first or time.time()) - self.struck_at
        self.is_undisturbed(outcome)

    def is_undisturbed(self, outcome: str, meant: Path | None = None, skipped: int | None = None) -> None:
        """The run's folder is that of an undisturbed one, or of another that is given."""
        meant = meant or self.setting.reference(self.result.layout)
        if found := verdict.differences(self.run, meant, skipped):
            raise Failed("; ".join(found[:3]))
        self.result.outcome, self.result.equal = outcome, True
        self.result.final_loss = verdict.final_loss(self.run)

    def stops(self, job: Job, *words: str) -> None:
        """The job ends with status 1, and says these words."""
        status, said = self.wait(job), job.said()
        if status == 0:
            raise Failed(f"it went on as if nothing had happened: {_last_lines(said)}")
        if missing := [word for word in words if word not in said]:
            raise Failed(f"it stopped without saying {missing}: {_last_lines(said)}")

    def words(self) -> list[str]:
        """The command of its runs."""
        return [*self.setting.words(self.result.layout, self.run, self.data), *self.more]

    def _size_of_metrics(self) -> int:
        path = self.run / "metrics.jsonl"
        return path.stat().st_size if path.exists() else 0


def conduct(trial: Trial, fault: Any) -> dict[str, Any]:
    """Carry out a trial; its result, whatever happens."""
    began = time.monotonic()
    try:
        fault(trial)
    except Exception as error:
        trial.result.problem = f"{type(error).__name__}: {error}" if not isinstance(error, Failed) else str(error)
    finally:
        processes.end_all()
    trial.result.seconds = time.monotonic() - began
    return asdict(trial.result)


def _last_lines(text: str) -> str:
    return " / ".join(line.strip() for line in text.splitlines()[-4:])
