"""python tools/replay_step.py --load runs/my --iteration 1201

Runs one iteration of a run again, from the newest checkpoint before it, and compares loss and gradient norm with what
metrics.jsonl recorded; prints the loss of each sample, the worst first. Under torchrun with the processes of the run it
repeats its layout, in which a run on a CPU is the same bit for bit. Exits with 1 if the iteration does not reproduce.
The work is in `contextlm/training/replay.py`.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from contextlm.errors import told_to_the_user
from contextlm.training.replay import Replayed, replay

_OTHER_LAYOUT = "another layout or device rounds otherwise: take the run's own, or allow for it with --tolerance 1e-4"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Run one iteration again.", allow_abbrev=False, epilog=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--load", required=True, type=Path, metavar="FOLDER", help="the run's --save folder")
    parser.add_argument("--iteration", required=True, type=int, metavar="N", help="which one")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="difference of a number, as a share of it, that still counts as the same [0: bit for bit]",
    )
    parser.add_argument("--samples", type=int, default=16, metavar="N", help="how many samples to print [16]")
    return parser


@told_to_the_user()
def main(arguments: Sequence[str] | None = None) -> None:
    """Replay, print, exit with the verdict."""
    options = parser().parse_args(arguments)
    if options.iteration < 1:
        parser().error("--iteration: give a whole number >= 1")
    is_first = os.environ.get("RANK", "0") == "0"
    done = replay(options.load, options.iteration, lambda text: _say(text) if is_first else None)
    if is_first:
        _print(done, options.samples)
    agrees = done.recorded["skipped"] == done.found["skipped"] and all(
        done.difference(name) <= options.tolerance for name in ("lm_loss", "grad_norm")
    )
    if not agrees:
        reason = "" if done.same_layout in (True, None) else f"; {_OTHER_LAYOUT}"
        raise SystemExit(f"iteration {options.iteration} does not reproduce{reason}" if is_first else 1)
    if is_first:
        exact = "bit for bit" if done.is_equal else f"within {options.tolerance:g}"
        print(f"iteration {options.iteration} reproduces {exact}")


def _print(done: Replayed, most: int) -> None:
    print(f"from {done.start}{'' if done.same_layout in (True, None) else ', under another layout or device'}")
    table = Table()
    for heading in ("", "recorded", "replayed", "difference"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name in ("lm_loss", "grad_norm"):
        table.add_row(name, _number(done.recorded[name]), _number(done.found[name]), f"{done.difference(name):.2g}")
    table.add_row("skipped", done.recorded["skipped"] or "no", done.found["skipped"] or "no", "")
    samples = Table()
    for heading in ("sample", "data rank", "micro-batch", "lm_loss"):
        samples.add_column(heading, justify="right")
    worst = sorted(done.samples, key=lambda x: -x.lm_loss if math.isfinite(x.lm_loss) else -math.inf)
    for sample in worst[:most]:
        samples.add_row(str(sample.sample), str(sample.data_rank), str(sample.micro_batch), _number(sample.lm_loss))
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    console.print(samples)


def _number(value: float | None) -> str:
    return "no number" if value is None or not math.isfinite(value) else repr(value)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
