"""How the job ended: `exit.json`, written by the first rank that fails or by rank 0 at the end.

torchrun turns every failure into status 1 and prints last; this file keeps the cause.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def recorded(output_dir: str | None) -> Iterator[None]:
    """Write `<output_dir>/exit.json` when the block ends; a failure is passed on.

    The file holds `status` (0 or 1), `rank` and `cause`. It is removed at the start by rank 0.
    """
    rank = int(os.environ.get("RANK", "0"))
    path = None if output_dir is None else Path(output_dir) / "exit.json"
    if path is not None and rank == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
    try:
        yield
    except BaseException as error:
        cause = str(error).strip() or type(error).__name__
        _write_first(path, {"status": 1, "rank": rank, "cause": cause})
        raise
    if rank == 0:
        _write_first(path, {"status": 0, "rank": 0, "cause": None})


def _write_first(path: Path | None, record: dict[str, object]) -> None:
    """Write the record unless another rank was first: what follows a first failure is not the cause."""
    if path is None:
        return
    try:
        with open(path, "x") as file:
            json.dump(record, file)
            file.write("\n")
    except FileExistsError:
        return
    except OSError as error:
        print(f"warning: {path} could not be written: {error}", file=sys.stderr)
