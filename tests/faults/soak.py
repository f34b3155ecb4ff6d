"""Many trials at once, and the table of what came of them.

    python -m tests.faults.soak --trials 200 --jobs 2 --seed 0 --out DIR
    python -m tests.faults.soak --only kill-one-rank --seed 17      # one trial again
    python -m tests.faults.soak --these kill-one-rank:17 save-crash:3:kept_lines      # some, and a control

Into DIR it writes, after every trial, `trials.jsonl`, a line for each, and `table.md`; and what the runs of those that
failed have printed. Exit status 1 if a trial failed, or a control did not; what it left is kept then.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from tests.faults.preloaded import preload

Planned = tuple[str, int, str | None]


def main(arguments: list[str]) -> int:
    """Run the trials; the exit status."""
    preload()  # before numpy and torch are imported, as they are below: it is to be one thread
    from tests.faults import processes
    from tests.faults.controls import CONTROLS
    from tests.faults.kinds import KINDS
    from tests.faults.saves import can_mount
    from tests.faults.setting import Setting
    from tests.faults.table import Account, is_good, line_of
    from tests.faults.trial import Trial
    from tests.faults.trials import Trials, unmount

    given = _parsed(arguments, sorted(KINDS))
    planned = given.these or _planned(given, {kind: fault.every for kind, fault in KINDS.items()})
    if not given.these and not given.only:
        planned = [("control", given.seed, control.__name__) for control in CONTROLS] + planned
    processes.adopt_orphans()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # by way of what ends all processes below
    folder = Path(tempfile.mkdtemp(prefix="faults-", dir=given.folder))
    setting, account = Setting(folder), Account(given.out)
    began, is_whole = time.monotonic(), False
    if any(kind == "full-disk" for kind, *_ in planned) and not can_mount(folder):
        print("full-disk is left out: no small file system can be mounted here")
        planned = [one for one in planned if one[0] != "full-disk"]
    try:
        setting.make_data()
        for layout in sorted({Trial(setting, kind, seed, folder).result.layout for kind, seed, _ in planned}):
            setting.make_reference(layout)
        for result in Trials(setting, planned, given.jobs, given.keep):
            account.add(result, folder)
            print(line_of(len(account.results), len(planned), result), flush=True)
        is_whole = all(map(is_good, account.results))
    finally:
        processes.end_all()
        unmount(folder)
        if is_whole and not given.keep:
            shutil.rmtree(folder)
        else:
            print(f"kept: {folder}")
    failed, seconds = sum(not is_good(result) for result in account.results), time.monotonic() - began
    print(f"\n{account.table()}\n{len(account.results)} trials, {failed} failed, {seconds:.0f} s")
    return 0 if is_whole else 1


def _parsed(arguments: list[str], kinds: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--trials", type=int, help="how many (200; with --only, one of each)")
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 2) // 2), help="at once (cores / 2)")
    parser.add_argument("--seed", type=int, default=0, help="of the first trial of each kind (0)")
    parser.add_argument("--only", nargs="+", metavar="KIND", choices=kinds, help=f"of {', '.join(kinds)}")
    parser.add_argument("--these", nargs="+", type=_planned_one, metavar="KIND:SEED[:CONTROL]", help="exactly these")
    parser.add_argument("--out", type=Path, metavar="DIR", help="for the table, and a JSON line of each trial")
    parser.add_argument("--folder", type=Path, help="where the runs are made (the folder for temporary files)")
    parser.add_argument("--keep", action="store_true", help="keep the runs")
    return parser.parse_args(arguments)


def _planned_one(text: str) -> Planned:
    kind, seed, *control = text.split(":")
    return kind, int(seed), control[0] if control else None


def _planned(given: argparse.Namespace, every: Mapping[str, int]) -> list[Planned]:
    """Kinds and seeds: in turns, those that are not part of every turn less often."""
    kinds = [kind for kind in every if kind in (given.only or every) and every[kind]]
    count = given.trials or (len(kinds) if given.only else 200)
    order: list[Planned] = []
    turn = 0
    while len(order) < count:
        order += [(kind, given.seed + turn, None) for kind in kinds if turn % every[kind] == 0]
        turn += 1
    return order[:count]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
