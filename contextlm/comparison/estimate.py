"""How long a study will take, from a few iterations of each arm, as many at once as the study will train."""

from __future__ import annotations

import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from contextlm import atomic_files
from contextlm.analysis.measures import has_zeroed_pass
from contextlm.child_processes import tail
from contextlm.comparison.jobs import Job, run_jobs
from contextlm.comparison.runs import Run
from contextlm.config import dump
from contextlm.config.schema import CheckpointConfig
from contextlm.errors import UserError

ITERATIONS = 30
WARM_UP = 5  # first iterations, which are slower


def estimate_seconds(runs: Sequence[Run], at_once: int, program: Sequence[str]) -> dict[str, float]:
    """Seconds of one whole run of each arm, its start and its evaluations included.

    Args:
        runs: of the study; the first one of each arm is timed.
        at_once: runs that share the machine.
        program: command of a training run, without its options.

    Raises:
        UserError: an arm cannot be trained.
    """
    timed = {run.arm.name: run for run in reversed(runs)}
    begun: dict[str, float] = {}
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)

        def ended(job: Job, status: int) -> None:
            if status:
                raise UserError(f"arms.{job.name}: cannot be trained (exit status {status}):", tail(job.log))
            whole = time.monotonic() - begun[job.name]
            seconds[job.name] = whole_run(timed[job.name], whole, folder / job.name / "metrics.jsonl")

        jobs = [_job(run, folder, program) for run in timed.values()]
        run_jobs(jobs, at_once, lambda job: begun.update({job.name: time.monotonic()}), ended, lambda: None)
    return seconds


def _job(run: Run, folder: Path, program: Sequence[str]) -> Job:
    """The run, stopped after a few iterations and not saved."""
    place = folder / run.arm.name
    config = dataclasses.replace(
        run.config,
        training=dataclasses.replace(run.config.training, exit_interval=min(ITERATIONS, run.iterations)),
        checkpoint=CheckpointConfig(),
        logging=dataclasses.replace(run.config.logging, output_dir=str(place)),
    )
    place.mkdir()
    atomic_files.write_bytes(place / "run.yaml", dump(config).encode())
    return Job(run.arm.name, (*program, "--config", str(place / "run.yaml")), run.study_folder, place / "log.txt")


def whole_run(run: Run, whole: float, metrics: Path) -> float:
    """Seconds of the whole run, given those of the timed one, whose metrics are here.

    A forward pass of an evaluation takes a third of a training step; with the context zeroed there are two.
    """
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    times = [line["elapsed_ms"] / 1000 for line in lines if "elapsed_ms" in line]
    per_iteration = statistics.median(times[WARM_UP:] or times)
    training = run.config.training
    evaluations = -(-run.iterations // training.eval_interval)
    passes = evaluations * training.eval_iters * (2 if has_zeroed_pass(run.config) else 1)
    return whole - sum(times) + per_iteration * (run.iterations + passes / 3)
