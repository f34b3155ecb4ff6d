"""How the job ended: `exit.json`, written by the first rank that fails or by rank 0 at the end.

Status 0: the job did what was asked. 75: a signal came, it saved, and wants to be started again. 1: it failed.

torchrun turns every failure into status 1 and prints last; this file keeps the cause. For launchers

    python -m contextlm.training.exit_status FOLDER

prints rank, cause and remedy of a failure and ends with its status; where nothing is on record, with 1.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import psutil

from contextlm import lock_files
from contextlm.checkpoints import save_lock
from contextlm.training import events
from contextlm.training.faults import explain

PREEMPTED = 75
_EVENTS = {1: "failure", PREEMPTED: "preemption"}  # by status; that it was done is told by the loop


@contextlib.contextmanager
def recorded(output_dir: str | None) -> Iterator[None]:
    """Write `<output_dir>/exit.json` when the block ends; a failure is passed on.

    The file holds `status`, `rank`, `cause` and `attempt` (torchrun's restart count), and `remedy` where we know one.
    What an earlier job left there is removed at the start; that of an earlier attempt is kept, `exit.<attempt>.json`.
    """
    rank = int(os.environ.get("RANK", "0"))
    if rank == 0:
        _remove_stale(output_dir)
    try:
        yield
    except BaseException as error:
        write_failure(output_dir, error)
        raise
    if rank == 0:
        _write_first(output_dir, {"status": 0, "rank": 0, "cause": None})


@contextlib.contextmanager
def failures_noted(output_dir: str | None) -> Iterator[None]:
    """Record a failure before its rank leaves the process group: then others fail too, and are not the cause."""
    try:
        yield
    except BaseException as error:
        write_failure(output_dir, error)
        raise


def write_preemption(output_dir: str | None, signal_name: str) -> None:
    """Record that a signal ended the job and that it has saved; called by all ranks, written by rank 0."""
    if os.environ.get("RANK", "0") == "0":
        _write_first(output_dir, {"status": PREEMPTED, "rank": 0, "cause": f"{signal_name}: saved, to be continued"})


def write_failure(output_dir: str | None, error: BaseException) -> None:
    """Record that this rank failed, unless another one did before it: what follows is not the cause."""
    fault = explain(error)
    name = "Ctrl-C: left without saving" if isinstance(error, KeyboardInterrupt) else type(error).__name__
    cause = fault.what if fault is not None else str(error).strip() or name
    write_cause(output_dir, int(os.environ.get("RANK", "0")), cause, "" if fault is None else fault.remedy)


def write_cause(output_dir: str | None, rank: int, cause: str, remedy: str) -> None:
    """Record which rank failed first, and why; a remedy may be empty."""
    record = {"status": 1, "rank": rank, "cause": cause}
    _write_first(output_dir, record | ({"remedy": remedy} if remedy else {}))


def _write_first(output_dir: str | None, record: dict[str, object]) -> None:
    """Write the record unless another rank of this attempt was first, or the folder is another job's."""
    if output_dir is None or save_lock.is_of_another_job(output_dir):
        return
    path = Path(output_dir) / "exit.json"
    record = record | {"attempt": _attempt(), "job": _job()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(output_dir)
        is_first = lock_files.create(path, f"{json.dumps(record)}\n")
        if is_first and (what := _EVENTS.get(cast(int, record["status"]))):
            events.append(output_dir, what, **record)
    except OSError as error:
        print(f"warning: {path} could not be written: {error}", file=sys.stderr)


def _remove_stale(output_dir: str | None) -> None:
    """Remove what an earlier job recorded, and put aside an earlier attempt's; never what this attempt wrote."""
    if output_dir is None or save_lock.is_of_another_job(output_dir):
        return
    started = _started()
    names = "exit.json", "exit.[0-9]*.json", "exit.json.*.part"  # the last of one that was killed while it wrote
    for path in (path for name in names for path in Path(output_dir).glob(name)):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < started or _is_of_another_start(path):
                path.unlink()
    path = Path(output_dir) / "exit.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        attempt = json.loads(path.read_text())["attempt"]
        if attempt < _attempt():
            path.rename(path.with_name(f"exit.{attempt}.json"))


def _is_of_another_start(path: Path) -> bool:
    """Whether a record names another job: an orphan of a killed one may write it when this one has begun."""
    try:
        job = json.loads(path.read_text()).get("job")
    except (OSError, ValueError, AttributeError):
        return False
    if not isinstance(job, dict):
        return False
    ours = _job()
    same_host = job.get("host") == ours["host"]
    return job.get("run") != ours["run"] or (same_host and job.get("launcher") != ours["launcher"])


def _job() -> dict[str, object]:
    """What tells this start of a job from another one: torchrun's name of it, and on this host who started the rank."""
    under_torchrun = "TORCHELASTIC_RESTART_COUNT" in os.environ
    launcher = os.getppid() if under_torchrun else os.getpid()
    return {"run": os.environ.get("TORCHELASTIC_RUN_ID"), "host": socket.gethostname(), "launcher": launcher}


def _started() -> float:
    """When this job began, before any of its ranks: torchrun's start, or ours without torchrun."""
    process = psutil.Process()
    if "TORCHELASTIC_RESTART_COUNT" in os.environ and (parent := process.parent()) is not None:
        process = parent
    return process.create_time()


def _attempt() -> int:
    """How often torchrun has restarted the ranks."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def main(arguments: list[str]) -> int:
    """Tell how the job ended that wrote to a folder; returns its status."""
    (folder,) = arguments
    path = Path(folder) / "exit.json"
    try:
        record = json.loads(path.read_text())
        status, rank, cause = record["status"], record["rank"], record["cause"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"{path}: how the job ended is not on record: {error}", file=sys.stderr)
        return 1
    if status:
        print(*filter(None, (f"rank {rank}: {cause}", record.get("remedy"))), sep="\n      ", file=sys.stderr)
    return status


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
