"""python tools/doctor.py --dir runs

Looks at this machine as a run would: versions, what computes each operation, network, the file system of a folder,
GPUs, memory and limits. Each line is ok, a warning or a problem with its remedy; exit status 1 if there is a problem.
Under torchrun also whether the ranks meet and their clocks agree. The work is in `contextlm/doctor/`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence

from contextlm.doctor import backends, file_system, machine, network, packages, ranks
from contextlm.doctor.finding import OK, PROBLEM, WARNING, Finding
from contextlm.errors import until_the_reader_leaves

_MARKS = {OK: "  ", WARNING: "! ", PROBLEM: "X "}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description="Look at this machine as a run would.", allow_abbrev=False)
    parser.add_argument("--dir", default=".", metavar="FOLDER", help="where checkpoints will be saved [.]")
    parser.add_argument("--json", action="store_true", help="print a list of objects in place of lines")
    return parser


@until_the_reader_leaves()
def main(arguments: Sequence[str]) -> int:
    """Run the program; the exit status."""
    given = parser().parse_args(arguments)
    found = [
        *packages.packages(),
        *backends.backends(),
        *machine.machine(),
        *file_system.file_system(given.dir),
        *network.network(),
        *ranks.ranks(),
    ]
    if os.environ.get("LOCAL_RANK", "0") == "0":  # the ranks of a host see the same
        if given.json:
            print(json.dumps([finding._asdict() for finding in found], indent=2))
        else:
            print(*_lines(found), sep="\n")
    return 1 if any(finding.state == PROBLEM for finding in found) else 0


def _lines(found: Sequence[Finding]) -> list[str]:
    """A heading for each subject, a line for each finding, and the count."""
    lines, subject = [], ""
    width = max(len(finding.name) for finding in found)
    for finding in found:
        if finding.subject != subject:
            subject = finding.subject
            lines.append(subject)
        lines.append(f"{_MARKS[finding.state]}{finding.name:<{width}}  {finding.words}")
        if finding.state != OK:
            lines.append(f"  {'':<{width}}  {finding.state}: {finding.remedy}")
    counts = {state: sum(finding.state == state for finding in found) for state in (WARNING, PROBLEM)}
    return [*lines, f"{counts[PROBLEM]} problem(s), {counts[WARNING]} warning(s)"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
