"""Faults inside a rank: numbers that are none, time that passes, a thread that fails."""

from __future__ import annotations

from tests.faults.job import Failed
from tests.faults.setting import ITERATIONS
from tests.faults.trial import Trial


def nan_gradient(trial: Trial) -> None:
    """The gradient of one rank is NaN in one iteration: it stops before anything of it is saved, and continues."""
    iteration = trial.dice.randrange(1, ITERATIONS + 1)
    rank = trial.dice.randrange(2)
    with trial.job(sabotage={"what": "nan_gradient", "rank": rank, "iteration": iteration}) as job:
        trial.stops(job, f"iteration {iteration}: the gradient norm is NaN or infinite")
    trial.struck(f"rank {rank}")
    trial.continues("stopped with the message, resumed")


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


def failing_thread(trial: Trial) -> None:
    """The thread that reads data ahead fails on one rank: the run stops with its words, and is continued."""
    sample = trial.dice.randrange(4 * ITERATIONS)
    with trial.job(sabotage={"what": "failing_thread", "sample": sample}) as job:
        trial.stops(job, f"sample {sample} went up in smoke")
    trial.struck("loader")
    trial.continues("stopped with the message, resumed")
