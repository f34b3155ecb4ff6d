"""One job at a time saves in a folder: a second one would overwrite good checkpoints.

Rank 0 holds `<save>/run.lock` (`lock_files.py`) from before anything is written there to the end, and touches it every
few seconds. A lock is taken over at once from an owner who is dead, or who was an earlier attempt of the same Slurm
job; from one that is out of sight, on another host, after a minute without a touch. Reading a folder needs no lock.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contextlm import lock_files
from contextlm.training.faults import Fault

if TYPE_CHECKING:
    from contextlm.parallel.agreement import Agreement

LOCK_FILE = "run.lock"
POLL_SECONDS = 0.5


class SaveLockLost(Fault):
    """Another job has taken over the folder; nothing more may be written there."""


@contextlib.contextmanager
def held(save: str | None) -> Iterator[list[str]]:
    """Hold the lock of `--save` inside; on other ranks than the first, or without `--save`, nothing.

    Yields:
        why it is not held where it should be, a sentence; nothing may be written to the folder then. What else is
        wrong with the run is still to be found.
    """
    if save is None or os.environ.get("RANK", "0") != "0":
        yield []
        return
    lock, text = Path(save) / LOCK_FILE, _this_job()
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        refusal = _acquire(lock, text)
    except OSError as error:
        refusal = f"--save {save}: {lock.name} cannot be made there: {error.strerror}; give a folder where it can"
    if refusal is not None:
        yield [refusal]
        return
    try:
        with lock_files.Heartbeat(lambda: _beat(lock, text), name="save lock"):
            yield []
    finally:
        lock_files.remove(lock, text)


def require(save: str | None, rank: int, hosts: Agreement) -> None:
    """Before anything is written to the folder: is it still this job's? Collective.

    Raises:
        SaveLockLost: on every rank, if another job has taken it over.
    """
    if save is None:
        return
    other = _other_owner(Path(save) / LOCK_FILE) if rank == 0 else None
    (is_lost,) = hosts.largest(other is not None)
    if is_lost:
        by = "another job" if other is None else _words(other)
        raise SaveLockLost(
            f"--save {save}: {by} has taken over this folder: nothing was heard of this job for "
            f"{lock_files.SILENT_SECONDS:.0f} s, or its lock was removed; nothing more was written",
            "let that job go on, and look for what made this one stand still (a frozen host or file system?)",
        )


def lost_to(save: str | Path) -> str | None:
    """Who has taken over the folder from this process, in words; None if nobody has."""
    other = _other_owner(Path(save) / LOCK_FILE)
    return None if other is None else _words(other)


def is_of_another_job(folder: str) -> bool:
    """Whether a job saves in a folder that this rank does not belong to: then its `exit.json` is not ours to write."""
    lock = Path(folder) / LOCK_FILE
    try:
        text = lock_files.read(lock)
        if text is None or lock_files.is_ours(text):
            return False
        meeting = _meeting_point()
        if meeting is not None and lock_files.read_owner(text).get("meeting") == meeting:
            return False
        return _reason_to_take_over(lock, text) is None
    except OSError:
        return False


def _acquire(lock: Path, text: str) -> str | None:
    """Make the lock, or take it over; a live owner's is refused once that is certain, with a sentence."""
    waited = False
    began = time.monotonic()
    while not lock_files.create(lock, text):
        if (known := lock_files.read(lock)) is None:
            continue
        why = _reason_to_take_over(lock, known)
        if why is not None and lock_files.replace(lock, known, text):
            print(f"--save {lock.parent}: taken over from {_words(lock_files.read_owner(known))}: {why}", flush=True)
            return None
        if why is None and (_is_alive(known) or _is_touched(lock, known, began)):
            return _refusal(lock, lock_files.read_owner(known))
        if why is None and not waited:
            waited = True
            owner = _words(lock_files.read_owner(known))
            print(f"--save {lock.parent}: waiting for a sign of life of {owner}", file=sys.stderr, flush=True)
        time.sleep(POLL_SECONDS)
    return None


def _reason_to_take_over(lock: Path, known: str) -> str | None:
    """Why the owner is gone, as far as can be told; None if it may be alive."""
    if lock_files.is_dead(known):
        return "it is dead"
    if not lock_files.is_in_sight(known) and _is_earlier_attempt(lock_files.read_owner(known)):
        return "this job was started again"
    silent = lock_files.silent_for(lock)
    if silent is not None and silent > lock_files.SILENT_SECONDS:
        return f"it has been silent for {silent:.0f} s"
    return None


def _is_earlier_attempt(owner: Mapping[str, Any]) -> bool:
    """Whether Slurm or torchrun started the owner before they started this process. Only Slurm's numbers are unique."""
    ours, known = _attempt(), owner.get("attempt")
    is_this_job = ours["slurm_job"] is not None and owner.get("slurm_job") == ours["slurm_job"]
    return is_this_job and isinstance(known, list) and known < ours["attempt"]


def _is_alive(known: str) -> bool:
    """Whether the owner is in sight, and not dead."""
    return lock_files.is_in_sight(known) and not lock_files.is_dead(known)


def _is_touched(lock: Path, known: str, began: float) -> bool:
    """Whether the owner has touched its lock since we began to look; a second more for coarse clocks."""
    if lock_files.read(lock) != known:
        return False
    silent = lock_files.silent_for(lock)
    return silent is not None and silent + 1 < time.monotonic() - began


def _beat(lock: Path, text: str) -> None:
    """Touch our lock; one that was removed by hand is made again."""
    known = lock_files.read(lock)
    if known == text:
        os.utime(lock)
    elif known is None:
        lock_files.create(lock, text)


def _other_owner(lock: Path) -> Mapping[str, Any] | None:
    """Who holds the lock, if it is somebody else; a lock that cannot be read is nobody's."""
    try:
        text = lock_files.read(lock)
    except OSError:
        return None
    return None if text is None or lock_files.is_ours(text) else lock_files.read_owner(text)


def _this_job() -> str:
    return lock_files.this_process(
        **_attempt(),
        torchrun=os.environ.get("TORCHELASTIC_RUN_ID"),
        meeting=_meeting_point(),
        since=time.strftime("%Y-%m-%d %H:%M:%S %Z"),
        command=" ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    )


def _attempt() -> dict[str, Any]:
    """The job, where its number is unique, and how often Slurm and torchrun have started it again."""
    counts = [os.environ.get(name, "0") for name in ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT")]
    return {
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "attempt": [int(count) if count.isdigit() else 0 for count in counts],
    }


def _meeting_point() -> str | None:
    """Where the ranks of this job meet, the same for all of them; None if there is only one."""
    address = os.environ.get("MASTER_ADDR")
    return None if address is None else f"{address}:{os.environ.get('MASTER_PORT')}"


def _words(owner: Mapping[str, Any]) -> str:
    """An owner, for people."""
    if not owner:
        return "an unknown job (its lock is damaged)"
    job = f", Slurm job {owner['slurm_job']}" if owner.get("slurm_job") else ""
    return f"process {owner['pid']} on {owner.get('host')}{job}, started {owner.get('since', 'some time ago')}"


def _refusal(lock: Path, owner: Mapping[str, Any]) -> str:
    command = f" ({owner['command']})" if owner.get("command") else ""
    return (
        f"--save {lock.parent}: another job saves there: {_words(owner)}{command}; save elsewhere or end that job; "
        f"if it is none, remove {lock}"
    )
