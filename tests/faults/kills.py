"""Signals from outside, at a random moment, to a rank, to all, to the launcher."""

from __future__ import annotations

import json
import signal
import time

from tests.faults.job import Failed
from tests.faults.trial import Trial


def kill_one_rank(trial: Trial) -> None:
    """SIGKILL of one rank: its peers and the launcher end, the same command again continues."""
    with trial.job() as job:
        if trial.moment().wait(job, trial.run):
            trial.strike(job, trial.dice.choice(job.ranks))
        trial.wait(job)
    trial.continues()


def kill_all(trial: Trial) -> None:
    """SIGKILL of everything at once, as when the power goes."""
    with trial.job() as job:
        if trial.moment().wait(job, trial.run):
            job.kill_all()
            trial.struck()
        trial.wait(job)
    trial.continues()


def kill_again_and_again(trial: Trial) -> None:
    """Everything is killed three times, each continuation too."""
    for _ in range(3):
        with trial.job() as job:
            if trial.moment().wait(job, trial.run):
                job.kill_all()
                trial.struck()
            trial.wait(job)
    trial.continues()


def sigterm(trial: Trial) -> None:
    """SIGTERM to the launcher: the ranks save and ask to be continued; before training it only ends them."""
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
