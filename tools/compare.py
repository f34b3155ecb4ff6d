"""python tools/compare.py examples/studies/context_head.yaml --text corpus.jsonl --jobs 2

Trains the arms of a study, each with every seed, on the same tokens in the same order, and reports their paired
differences with 95% intervals in `runs/studies/NAME/results.md`. Run it again to continue: what is finished is not
repeated. `--dry-run` shows the arms, `--estimate` how long it will take. Read next: `contextlm/comparison/study.py`.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from contextlm.child_processes import only_one, tail
from contextlm.comparison import tokens
from contextlm.comparison.display import Display, duration
from contextlm.comparison.estimate import estimate_seconds
from contextlm.comparison.jobs import Job, run_jobs
from contextlm.comparison.page import arm_rows, markdown_table
from contextlm.comparison.results import write_results
from contextlm.comparison.runs import Run, changed_runs, plan_runs
from contextlm.comparison.study import Study, read_study
from contextlm.errors import UserError, told_to_the_user
from contextlm.preflight import result_files
from contextlm.training.exit_status import PREEMPTED

TRAINING = (sys.executable, str(Path(__file__).resolve().parents[1] / "pretrain_contextlm.py"))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train matched models and compare them.", allow_abbrev=False)
    parser.add_argument("study", type=Path, metavar="STUDY.yaml", help="what to train; see examples/studies")
    parser.add_argument(
        "--text",
        metavar="PATH",
        help="text to train on, as --input of preprocess_data.py, in place of the study's data",
    )
    parser.add_argument("--folder", type=Path, help="where everything goes [runs/studies/NAME]")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once; they share the cores [1]")
    parser.add_argument("--retrain-changed", action="store_true", help="train anew what the study file changed")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--dry-run", action="store_true", help="show the arms and do nothing")
    only.add_argument("--estimate", action="store_true", help="make the tokens, and time a few iterations of each arm")
    return parser


@told_to_the_user()
def main(arguments: Sequence[str] | None = None, program: Sequence[str] = TRAINING) -> int:
    """Train what is missing and report; 1 if a run did not get to its end, 130 if we were stopped.

    program: command of a training run, without its options.
    """
    given = parser().parse_args(arguments)
    console = Console(highlight=False, soft_wrap=True)
    if given.jobs < 1:
        raise UserError(f"--jobs {given.jobs}: give 1 or more")
    study = read_study(given.study, given.text)
    folder = (given.folder or Path("runs/studies") / study.name).resolve()
    try:
        if given.dry_run:
            _describe(study)
            return 0
        if wrong := result_files.folder_problems("--folder", folder, folder):
            raise UserError(*wrong)
        with only_one("comparison", folder, console.print):
            if given.estimate:
                _estimate(study, folder, given.jobs, program, console)
                return 0
            return _compare(study, folder, given, program, console)
    except TimeoutError as error:
        raise UserError(str(error)) from None
    except KeyboardInterrupt:
        console.print("stopped; the same command continues from here")
        return 130


def _compare(study: Study, folder: Path, given: argparse.Namespace, program: Sequence[str], console: Console) -> int:
    runs = plan_runs(study, folder, tokens.prepare(study.source, folder, workers=os.cpu_count() or 1))
    _settle_changes(runs, given.retrain_changed)
    missing = [run for run in runs if not run.is_finished()]
    console.print(f"{study.name}: {len(runs)} runs, {len(missing)} to train; results in {folder}/results.md")
    failed, stopped = _train(missing, given.jobs, program, console)
    with result_files.told("--folder", folder):
        page = write_results(study, runs, folder)
    print(page)
    for run in failed:
        console.print(f"{run.name} failed; the end of {run.log}:\n{_last_lines(run.log)}", markup=False)
    if stopped:
        console.print(f"{', '.join(run.name for run in stopped)}: stopped; the same command continues from there")
    return 1 if failed or stopped else 0


def _settle_changes(runs: Sequence[Run], retrain: bool) -> None:
    """Refuse to mix runs of two study files, unless the old ones are to go."""
    changed = changed_runs(runs)
    if changed and not retrain:
        names: dict[str, list[str]] = {}
        for name, options in changed.items():
            words = ", ".join(f"{option} {there!r}, now {here!r}" for option, (there, here) in options.items())
            names.setdefault(words, []).append(name)
        raise UserError(
            *(f"{', '.join(of_them)}: begun with other options: {words}" for words, of_them in names.items()),
            "the study has changed: give --retrain-changed to train these runs anew, or another --folder",
        )
    for run in runs:
        if run.name in changed:
            run.forget()


def _train(runs: Sequence[Run], at_once: int, program: Sequence[str], console: Console) -> tuple[list[Run], list[Run]]:
    """Train the runs; returns those that failed, and those that a signal stopped before their end."""
    by_name = {run.name: run for run in runs}
    failed: list[Run] = []
    stopped: list[Run] = []

    with Display(runs, console) as display:

        def started(job: Job) -> None:
            by_name[job.name].begin()
            display.begin(job.name)

        def ended(job: Job, status: int) -> None:
            run = by_name[job.name]
            if status == 0 and run.is_finished():
                loss = run.loss()
                display.end(run.name, "diverged" if loss is None else f"validation loss {loss:.4f}")
            elif status == PREEMPTED:
                stopped.append(run)
                display.end(run.name, "stopped by a signal, and saved")
            else:
                failed.append(run)
                display.end(run.name, f"FAILED, exit status {status}")

        jobs = [Job(run.name, (*program, *run.words()), run.study_folder, run.log) for run in runs]
        run_jobs(jobs, at_once, started, ended, display.watch)
    return failed, stopped


def _describe(study: Study) -> None:
    """The arms, and the number of runs."""
    print(markdown_table(arm_rows(study)))
    print(f"\n{len(study.arms)} arms x {len(study.seeds)} seeds = {len(study.arms) * len(study.seeds)} runs")


def _estimate(study: Study, folder: Path, at_once: int, program: Sequence[str], console: Console) -> None:
    """How long a run of each arm takes, and all that are left."""
    runs = plan_runs(study, folder, tokens.prepare(study.source, folder, workers=os.cpu_count() or 1))
    console.print(f"timing a few iterations of each arm, {at_once} at a time ...")
    seconds = estimate_seconds(runs, at_once, program)
    for name, whole in seconds.items():
        print(f"  {name}: {duration(whole)} a run")
    left = [seconds[run.arm.name] * (1 - run.saved_iteration() / run.iterations) for run in runs]
    print(f"about {duration(sum(left) / at_once)} with --jobs {at_once}, if the machine stays as it is")


def _last_lines(log: Path) -> str:
    return "\n".join(f"    {line}" for line in tail(log).splitlines()[-15:])


def _leave(signal_number: int, frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _leave)  # as Ctrl-C does: ends the running commands, then us
    sys.exit(main())
