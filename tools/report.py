"""Writes one self-contained HTML page about some training runs.

    .venv/bin/python tools/report.py runs/quickstart/contextlm runs/quickstart/gpt2 --output report.html

A run folder is the --save folder of a training run. Read next: `contextlm/analysis/report.py`.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from contextlm.analysis.report import build_report
from contextlm.analysis.run_record import read_run
from contextlm.errors import UserError, told_to_the_user


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_DIR", help="--save folder of a run")
    parser.add_argument("--output", type=Path, required=True, help="the .html file to write")
    parser.add_argument("--title", default="Training report", help="heading of the page")
    parser.add_argument("--commands", type=Path, help="text file with the commands that made the runs")
    arguments = parser.parse_args()
    with told_to_the_user():
        write_report(arguments.runs, arguments.output, arguments.title, arguments.commands)
    print(f"{arguments.output}: report on {len(arguments.runs)} run(s)")
    return 0


def write_report(folders: list[Path], output: Path, title: str, commands: Path | None) -> None:
    """Reads the run folders and writes the page; an older page is replaced whole or not at all."""
    missing = [
        f"{folder}: no such run folder; give the --save folder of a training run"
        for folder in folders
        if not folder.is_dir()
    ]
    if commands is not None and not commands.is_file():
        missing.append(f"--commands {commands}: no such file")
    if missing:
        raise UserError(*missing)
    typed = commands.read_text() if commands else ""
    page = build_report([read_run(folder) for folder in folders], title, typed)
    output.parent.mkdir(parents=True, exist_ok=True)
    unfinished = output.with_name(output.name + ".tmp")
    unfinished.write_text(page, encoding="utf-8")
    os.replace(unfinished, output)


if __name__ == "__main__":
    sys.exit(main())
