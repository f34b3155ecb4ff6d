"""What befell a run: `events.jsonl`, one JSON object for each beginning, end and fault.

Lines are only ever appended: `metrics.jsonl` is cut back when a run continues, its history is not. No torch.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from contextlm.training.setup import Run

EVENTS_FILE = "events.jsonl"


def note(run: Run, what: str, **facts: Any) -> None:
    """Append an event, at the current iteration unless the facts name another; all ranks call it, rank 0 writes."""
    if run.runtime.rank == 0:
        append(run.config.output_dir, what, **{"iteration": run.progress.iteration} | facts)


def begin(run: Run) -> None:
    """The run starts, or continues after the iteration at which it stands: how, on what, with which command."""
    from contextlm.training.provenance import made_by  # megatron-core looks at the device when it is imported

    if run.runtime.rank == 0:
        note(run, "begin", layout=run.layout_words, data_fingerprint=run.datasets.fingerprint, **made_by())


def append(output_dir: str | None, what: str, **facts: Any) -> None:
    """Append one event, with the time; a disk that takes no more is told of, and stops nothing.

    Args:
        output_dir: None keeps no events.
        what: `begin`, `end`, `failure`, `preemption`, `rollback`, `failed save`.
        facts: anything that JSON can hold.
    """
    if output_dir is None:
        return
    path = Path(output_dir) / EVENTS_FILE
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a") as file:
            file.write(json.dumps({"time": now, "what": what} | facts) + "\n")
    except OSError as error:
        print(f"warning: {path} could not be written: {error}", file=sys.stderr)
