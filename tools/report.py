"""python tools/report.py runs/quickstart/contextlm runs/quickstart/gpt2 --output report.html

Writes one self-contained HTML page about some training runs: results, curves, events, evaluations, samples, options
and the commands that made them. A run is a --save or --output-dir folder; runs that differ in their seed alone become
one curve with an interval. docs/report.md explains the page. The work is in `contextlm/analysis/report.py`.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from contextlm.analysis.report import build_report
from contextlm.analysis.run_record import RunRecord, read_runs
from contextlm.errors import UserError, told_to_the_user
from contextlm.preflight import result_files

TOKENS_OF_A_SAMPLE = 80


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Write one HTML page about some runs.", allow_abbrev=False, epilog=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="--save or --output-dir folder of a run")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="the .html file to write")
    parser.add_argument("--title", default="Training report", help="heading of the page [Training report]")
    parser.add_argument("--commands", type=Path, metavar="FILE", help="a text file with commands around the runs")
    parser.add_argument(
        "--samples", type=int, default=0, metavar="N", help="also have each run's checkpoint write N texts [0]"
    )
    return parser


@told_to_the_user()
def main(arguments: Sequence[str] | None = None) -> int:
    """Read the runs, write the page."""
    options = parser().parse_args(arguments)
    write_report(options)
    print(f"{options.output}: report on {len(options.runs)} run(s)")
    return 0


def write_report(options: argparse.Namespace) -> None:
    """Read the run folders and write the page; an older page is replaced whole or not at all.

    Raises:
        UserError: everything that is wrong with the folders and options.
    """
    runs, wrong, typed = [], list[str](), ""
    try:
        runs = read_runs(options.runs)
    except UserError as error:
        wrong += error.problems
    try:
        typed = options.commands.read_text() if options.commands else ""
    except (OSError, UnicodeDecodeError) as error:
        wrong.append(f"--commands {options.commands}: cannot be read ({error}); give a text file")
    if options.samples < 0:
        wrong.append(f"--samples {options.samples}: give 0 or more")
    wrong += result_files.problems("--output", options.output)
    if wrong:
        raise UserError(*wrong)
    if options.samples:
        runs = [_with_samples(run, options.samples) for run in runs]
    result_files.write("--output", options.output, build_report(runs, options.title, typed).encode())


def _with_samples(run: RunRecord, number: int) -> RunRecord:
    """The run with texts that its checkpoint writes now; where it cannot, with a sentence that says why."""
    from contextlm.inference.sample_texts import sample_texts  # torch and transformers take seconds

    try:
        texts = sample_texts(run.folder, number, TOKENS_OF_A_SAMPLE)
    except UserError as error:
        return dataclasses.replace(run, notes=[*run.notes, *(f"no samples: {problem}" for problem in error.problems)])
    return dataclasses.replace(run, samples=[*run.samples, *(("", text) for text in texts)])


if __name__ == "__main__":
    sys.exit(main())
