"""Faults inside a rank: numbers that are none, time that passes, a thread that fails."""

from __future__ import annotations

import json

from tests.faults.job import Failed, Job
from tests.faults.setting import ITERATIONS, SAVE_INTERVAL, SECONDS_BOUND
from tests.faults.trial import Trial

# A save may take longer than that: a rank that hangs in one is found when the process group gives up.
HANG_LIMIT = ("--hang-timeout-seconds", "3", "--distributed-timeout-minutes", "1")


def nan_skipped(trial: Trial) -> None:
    """A NaN in the gradient of one rank, once: that update is left out, by all; so does a run that is told to."""
    iteration, status = _with_a_nan(trial)
    if status:
        raise Failed(f"ended with {status}")
    told_to = trial.folder / "told-to-skip"
    words = trial.setting.words(trial.result.layout, told_to)
    reference = Job([*words, "--iterations-to-skip", str(iteration)], trial.folder / "told-to-skip.log")
    if reference.wait(SECONDS_BOUND) != 0:
        raise Failed(f"the run that is told to skip failed: {reference.said()[-300:]}")
    trial.is_undisturbed("went on, as a run told to skip", told_to, iteration)


def nan_rolled_back(trial: Trial) -> None:
    """The same with `--on-nan rollback`: back to the checkpoint before it, and then nothing of it is to be seen."""
    trial.more = ("--on-nan", "rollback")
    iteration, status = _with_a_nan(trial)
    if status == 0:
        trial.is_undisturbed("went back and on")
    elif iteration <= SAVE_INTERVAL:
        trial.continues("stopped for want of a checkpoint, resumed")
    else:
        raise Failed(f"ended with {status}")


def nan_aborted(trial: Trial) -> None:
    """The same with `--on-nan abort`: it stops before anything of it is saved; sound again, it continues."""
    trial.more = ("--on-nan", "abort")
    iteration, rank = trial.dice.randrange(1, ITERATIONS + 1), trial.dice.randrange(2)
    with trial.job(sabotage={"what": "nan_gradient", "rank": rank, "iteration": iteration}) as job:
        trial.stops(job, f"iteration {iteration}: the gradient norm is NaN or infinite")
    trial.struck(f"rank {rank}")
    trial.continues("stopped with the message, resumed")


def _with_a_nan(trial: Trial) -> tuple[int, int]:
    """Run with it; the iteration, and the job's status."""
    iteration, rank = trial.dice.randrange(1, ITERATIONS + 1), trial.dice.randrange(2)
    with trial.job(sabotage={"what": "nan_gradient", "rank": rank, "iteration": iteration}) as job:
        status = trial.wait(job)
    if not trial.told.exists():
        raise Failed("no gradient was NaN")
    trial.struck(f"rank {rank}")
    return iteration, status


def sleeping_rank(trial: Trial) -> None:
    """One rank sleeps for a moment, with or without Python's lock: the others wait, and nothing is lost."""
    iteration, holds_gil = trial.dice.randrange(1, ITERATIONS + 1), trial.dice.random() < 0.5
    rank, seconds = trial.dice.randrange(2), trial.dice.uniform(0.5, 2.0)
    options = {"iteration": iteration, "seconds": seconds, "holds_gil": holds_gil}
    with trial.job(sabotage={"what": "sleep", "rank": rank, **options}) as job:
        if status := trial.wait(job):
            raise Failed(f"ended with {status}")
    trial.struck("holding the GIL" if holds_gil else "asleep")
    trial.is_undisturbed("went on")


def hanging_rank(trial: Trial) -> None:
    """One rank sleeps for ever, with or without Python's lock: the run ends by itself, names it, and is continued."""
    trial.more = HANG_LIMIT
    iteration, holds_gil = trial.dice.randrange(2, ITERATIONS + 1), trial.dice.random() < 0.5
    rank = trial.dice.randrange(2)
    options = {"iteration": iteration, "seconds": 3600.0, "holds_gil": holds_gil}
    with trial.job(sabotage={"what": "sleep", "rank": rank, **options}) as job:
        trial.stops(job)
    trial.struck("holding the GIL" if holds_gil else "asleep")
    names_the_rank(trial, rank)
    trial.more = ()  # a busy machine may keep it waiting
    trial.continues("ended by itself with the rank's name, resumed")


def names_the_rank(trial: Trial, rank: int) -> None:
    """`exit.json` says that this rank was the first to fail."""
    record = json.loads((trial.run / "exit.json").read_text())
    if record["status"] == 0 or record["rank"] != rank:
        raise Failed(f"exit.json does not name rank {rank}: {record}")


def failing_thread(trial: Trial) -> None:
    """The thread that reads data ahead fails on one rank: the run stops with its words, and is continued."""
    sample = trial.dice.randrange(4 * ITERATIONS)
    with trial.job(sabotage={"what": "failing_thread", "sample": sample}) as job:
        trial.stops(job, f"sample {sample} went up in smoke")
    trial.struck("loader")
    trial.continues("stopped with the message, resumed")
