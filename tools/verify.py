"""python tools/verify.py runs/my

Proves or refutes, on a checkpoint or a Hugging Face folder, on the CPU: no logit sees a later token, decoding with a
cache is the full forward pass, batches and padding change nothing, two tensor-parallel processes give the numbers of
one. Prints the greatest deviation of each, as a share of the largest logit, and exits with 1 if a claim fails.
The work is in `contextlm/verification/`.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from contextlm import atomic_files
from contextlm.errors import UserError, told_to_the_user
from contextlm.preflight import result_files


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Prove or refute what a checkpoint claims.",
        allow_abbrev=False,
        epilog=(__doc__ or "").splitlines()[0],
    )
    parser.add_argument("load", metavar="FOLDER", help="what --save made, an iter_ folder, or a Hugging Face folder")
    parser.add_argument(
        "--trust-remote-code", action="store_true", help="of a Hugging Face folder: run its own code in place of ours"
    )
    parser.add_argument("--output", metavar="FILE", help="also write the result as JSON")
    return parser


@told_to_the_user()
def main(arguments: Sequence[str] | None = None) -> None:
    """Prove, print the table; the exit status is the verdict."""
    options = parser().parse_args(arguments)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # a proof to the last bit belongs on the CPU
    began = time.perf_counter()
    if wrong := result_files.problems("--output", options.output):
        raise UserError(*wrong)
    from contextlm.verification.proofs import proofs

    found = list(proofs(options.load, trust_remote_code=options.trust_remote_code, say=_say))
    print(f"{options.load}: {time.perf_counter() - began:.0f} s")  # a table's title would be broken to its width
    table = Table()
    for heading in ("claim", "deviation", "allowed", "verdict", "examined"):
        table.add_column(heading, justify="right" if heading in ("deviation", "allowed") else "left")
    for proof in found:
        is_number = proof.deviation is not None
        table.add_row(
            proof.claim,
            f"{proof.deviation:.2g}" if is_number else "",
            f"{proof.allowed:.0g}" if is_number else "",
            proof.verdict,
            proof.remark,
        )
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    if options.output:
        rows = [{**proof._asdict(), "holds": proof.holds} for proof in found]
        content = atomic_files.json_bytes({"checkpoint": options.load, "proofs": rows})
        result_files.write("--output", options.output, content)
    if failed := [proof.claim for proof in found if not proof.holds]:
        raise SystemExit(f"refuted: {'; '.join(failed)}")


def _say(step: str) -> None:
    print(step, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
