"""Signals from outside, at a random moment, to a rank, to all, to the launcher."""

from __future__ import annotations

import json
import signal
import time

from tests.faults import verdict
from tests.faults.inside import HANG_LIMIT, names_the_rank
from tests.faults.job import Failed, Job
from tests.faults.moments import Moment
from tests.faults.setting import ITERATIONS, SECONDS_BOUND
from tests.faults.trial import Trial


def kill_one_rank(trial: Trial) -> None:
    """SIGKILL of one rank: its peers and the launcher end and name it, the same command again continues."""
    trial.may_save_in_the_background()
    rank, trained = trial.dice.randrange(2), False
    with trial.job() as job:
        if was_there := trial.moment().wait(job, trial.run):
            trained = bool(verdict.metrics(trial.run))
            trial.strike(job, job.ranks[rank])
        trial.wait(job)
    if was_there and trained and trial.result.hit != "after the last save":
        names_the_rank(trial, rank)
    trial.continues()


def kill_all(trial: Trial) -> None:
    """SIGKILL of everything at once, as when the power goes."""
    trial.may_save_in_the_background()
    _kill_all_at(trial, trial.moment())
    trial.continues()


def kill_again_and_again(trial: Trial) -> None:
    """Everything is killed three times, each continuation too."""
    trial.may_save_in_the_background()
    for _ in range(3):
        _kill_all_at(trial, trial.moment())
    trial.continues()


def _kill_all_at(trial: Trial, moment: Moment) -> None:
    """Start, or continue, and kill everything at a moment, if it comes."""
    with trial.job() as job:
        if moment.wait(job, trial.run):
            job.kill_all()
            trial.struck()
        trial.wait(job)


def kill_launcher(trial: Trial) -> None:
    """SIGKILL of the launcher alone: its ranks notice, and do not go on without it."""
    trial.may_save_in_the_background()
    with trial.job(sabotage={"what": "pace", "seconds": 0.5}) as job:
        if trial.moment().wait(job, trial.run):
            trial.strike(job, job.launcher)
        trial.wait(job)
    trial.continues()


def kill_while_deleting(trial: Trial) -> None:
    """SIGKILL of everything where each save deletes the checkpoint before it: one is always whole."""
    trial.more = ("--save-total-limit", "1")
    trial.may_save_in_the_background()
    for _ in range(2):
        _kill_all_at(trial, trial.moment_in_training())
        if trial.result.hit.startswith(("between", "after")) and not list(trial.run.glob("iter_???????")):
            raise Failed("no checkpoint is left")
    trial.continues()
    if len(left := list(trial.run.glob("iter_*"))) != 1:
        raise Failed(f"{len(left)} checkpoints are left")


def two_jobs(trial: Trial) -> None:
    """The same command again while the first one runs: it is refused, and the first never notices."""
    with trial.job(sabotage={"what": "pace", "seconds": 1.5}) as job:  # it must outlast the second one's start
        if not trial.moment_in_training().wait(job, trial.run):
            raise Failed("the first job was over too soon")
        trial.struck()
        second = Job(trial.words(), trial.folder / "second.log")
        status = second.wait(SECONDS_BOUND)
        if status == 0 or "another job saves there" not in second.said():
            raise Failed(f"the second job ended with {status}: {second.said()[-300:]}")
        if status := trial.wait(job):
            raise Failed(f"the first job ended with {status}")
    trial.is_undisturbed("refused, the first went on")


def sigterm(trial: Trial) -> None:
    """SIGTERM to the launcher: the ranks save and ask to be continued; before training it only ends them."""
    trial.may_save_in_the_background()
    with trial.job(sabotage={"what": "pace", "seconds": 0.15}) as job:
        moment = trial.moment()
        if moment.wait(job, trial.run):
            trial.strike(job, job.launcher, number=signal.SIGTERM)
        trial.wait(job)
    _has_saved(trial)
    trial.continues()


def _has_saved(trial: Trial) -> None:
    """After a signal during training the checkpoint is that of the last iteration told."""
    record = trial.run / "exit.json"
    if not record.exists() or json.loads(record.read_text())["status"] != 75:
        return
    told = [json.loads(line) for line in (trial.run / "metrics.jsonl").read_text().splitlines()]
    last = max(line["iteration"] for line in told)
    saved = int((trial.run / "latest_checkpointed_iteration.txt").read_text())
    if saved != last:
        raise Failed(f"status 75, but iteration {last} was trained and {saved} saved")


def stopped_for_a_while(trial: Trial) -> None:
    """SIGSTOP of one rank, SIGCONT a moment later: the others wait, nothing is lost, nobody restarts."""
    with trial.job() as job:
        if trial.moment().wait(job, trial.run):
            rank = trial.dice.choice(job.ranks)
            trial.strike(job, rank, number=signal.SIGSTOP)
            time.sleep(trial.dice.uniform(0.2, 1.0))
            job.send(signal.SIGCONT, rank)
        if status := trial.wait(job):
            raise Failed(f"ended with {status}")
    trial.is_undisturbed("went on")


def stopped_for_good(trial: Trial) -> None:
    """SIGSTOP of one rank, and never again a word of it: the run ends by itself, names it, and is continued."""
    trial.more = HANG_LIMIT
    rank = trial.dice.randrange(2)
    with trial.job(sabotage={"what": "pace", "seconds": 0.1}) as job:
        moment = Moment("iteration", trial.dice.randrange(2, ITERATIONS - 1), trial.dice.uniform(0, 0.1))
        if not moment.wait(job, trial.run):
            raise Failed("it was over too soon")
        trial.strike(job, job.ranks[rank], number=signal.SIGSTOP)
        trial.stops(job)
    names_the_rank(trial, rank)
    trial.more = ()  # a busy machine may keep it waiting
    trial.continues("ended by itself with the rank's name, resumed")


def torchrun_killed(trial: Trial) -> None:
    """SIGKILL of torchrun itself."""
    with trial.job(torchrun=0, sabotage={"what": "pace", "seconds": 0.5}) as job:
        if trial.moment_in_training().wait(job, trial.run):
            trial.strike(job, job.launcher)
        trial.wait(job)
    trial.continues()


def torchrun_restarts(trial: Trial) -> None:
    """SIGKILL of one rank under `torchrun --max-restarts`: no hand is needed."""
    with trial.job(torchrun=2) as job:
        if trial.moment_in_training().wait(job, trial.run):
            trial.strike(job, trial.dice.choice(job.ranks))
        if status := trial.wait(job):
            raise Failed(f"ended with {status} in spite of its restarts")
    trial.is_undisturbed("restarted by torchrun")


def torchrun_sigterm(trial: Trial) -> None:
    """SIGTERM to torchrun."""
    with trial.job(torchrun=0, sabotage={"what": "pace", "seconds": 0.3}) as job:
        if trial.moment_in_training().wait(job, trial.run):
            trial.strike(job, job.launcher, number=signal.SIGTERM)
        trial.wait(job)
    _has_saved(trial)
    trial.continues()
