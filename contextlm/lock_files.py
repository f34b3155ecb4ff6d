"""A lock is a file that only one process can make; it names its owner, who touches it every few seconds.

Shared file systems included: the file appears with its content or not at all (a hard link, which NFS makes once), and
whether an owner lives is decided without comparing clocks. A process of this machine is looked for; of any other one
the touches are waited for, or their age is measured by the clock of the file system. Who uses it:
`data/build_lock.py`, `checkpoints/save_lock.py`; `training/exit_status.py` makes a record that only the first rank can.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

HEARTBEAT_SECONDS = 5.0
SILENT_SECONDS = 60.0
_SAME_START_SECONDS = 2.0  # the clock may be set between two readings of when a process began


def this_process(**about: Any) -> str:
    """The content of this process's locks: what tells it from every other one, and `about` it, for people."""
    process = psutil.Process()
    owner = {
        "host": socket.gethostname(),
        "boot": _first_line("/proc/sys/kernel/random/boot_id"),
        "namespace": _link("/proc/self/ns/pid"),  # of process numbers: a container has its own
        "pid": process.pid,
        "started": round(process.create_time(), 2),
    }
    return json.dumps(owner | about) + "\n"


def read_owner(text: str) -> Mapping[str, Any]:
    """The owner that a lock names; empty where it names none: it is damaged, or about to be written."""
    try:
        owner = json.loads(text)
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) and isinstance(owner.get("pid"), int) else {}


def is_ours(text: str) -> bool:
    """Whether a lock is one that this process made."""
    owner = read_owner(text)
    return owner.get("pid") == os.getpid() and is_in_sight(text) and _still_runs(owner)


def is_in_sight(text: str) -> bool:
    """Whether the owner's process number means something here: same start of the same machine, same namespace."""
    owner, here = read_owner(text), json.loads(this_process())
    return all(owner.get(name) == here[name] for name in ("host", "boot", "namespace"))


def is_dead(text: str) -> bool:
    """Whether an owner that would be in sight is not there; False where that cannot be seen."""
    owner = read_owner(text)
    if not is_in_sight(text):
        return False
    try:
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False  # another user's
    return not _still_runs(owner)


def create(lock: Path, text: str) -> bool:
    """Make the lock; False if it is there already.

    Raises:
        OSError: no file can be made there.
    """
    part = lock.with_name(f"{lock.name}.{socket.gethostname()}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        part.write_text(text)
        try:
            os.link(part, lock)
        except FileExistsError:
            # A server whose answer got lost has made the link and is asked again; then the file has two names.
            return part.stat().st_nlink == 2
        except OSError:  # a file system without hard links
            return _create_exclusively(lock, text)
        return True
    finally:
        part.unlink(missing_ok=True)


def replace(lock: Path, known: str, text: str) -> bool:
    """Put a lock in the place of one whose owner is gone; of all processes that try, one succeeds.

    Args:
        known: the content that was seen of the old one. Only who holds the claim on that very owner may replace it,
            so a process that looked earlier cannot take the place of the next owner.
    """
    claim = lock.with_name(f"{lock.name}.{hashlib.sha256(known.encode()).hexdigest()[:12]}.claim")
    if not create(claim, text):
        if is_dead(read(claim) or "") or (silent_for(claim) or 0) > SILENT_SECONDS:
            claim.unlink(missing_ok=True)
        return False
    part = claim.with_suffix(".part")
    try:
        if read(lock) != known:
            return False
        part.write_text(text)
        os.replace(part, lock)
        return True
    finally:
        part.unlink(missing_ok=True)
        claim.unlink(missing_ok=True)


def read(lock: Path) -> str | None:
    """The content of a lock; None if there is none."""
    try:
        return lock.read_text(errors="replace")
    except FileNotFoundError:
        return None


def remove(lock: Path, text: str) -> None:
    """Remove a lock if it still has that content."""
    with contextlib.suppress(OSError):
        if lock.read_text(errors="replace") == text:
            lock.unlink()


def silent_for(lock: Path) -> float | None:
    """Seconds since the owner's last touch, by the clock of the file system; None without a lock.

    Raises:
        OSError: no file can be made beside it.
    """
    probe = lock.with_name(f"{lock.name}.{socket.gethostname()}.{os.getpid()}.clock")
    try:
        probe.write_text("now\n")
        now = _touched(probe)
        touched = _touched(lock)
    finally:
        probe.unlink(missing_ok=True)
    return None if touched is None or now is None else now - touched


class Heartbeat:
    """A thread that does something every few seconds for as long as the block lasts."""

    def __init__(self, beat: Callable[[], None], name: str) -> None:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(beat,), name=name, daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(timeout=HEARTBEAT_SECONDS)  # a file system that hangs must not keep us

    def _run(self, beat: Callable[[], None]) -> None:
        while not self._ended.wait(HEARTBEAT_SECONDS):
            with contextlib.suppress(OSError):
                beat()


def _create_exclusively(lock: Path, text: str) -> bool:
    """Without a hard link the content comes a moment after the file."""
    try:
        descriptor = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
    return True


def _touched(path: Path) -> float | None:
    """Time of the last change; of the opened file, which makes NFS ask its server."""
    try:
        with open(path, "rb") as stream:
            return os.fstat(stream.fileno()).st_mtime
    except FileNotFoundError:
        return None


def _still_runs(owner: Mapping[str, Any]) -> bool:
    """Whether the process of that number is still the owner, not a later one, nor only its remains."""
    try:
        process = psutil.Process(owner["pid"])
        is_there = process.status() != psutil.STATUS_ZOMBIE
        return is_there and abs(process.create_time() - float(owner["started"])) < _SAME_START_SECONDS
    except psutil.NoSuchProcess:
        return False
    except (psutil.Error, KeyError, TypeError, ValueError):
        return True


def _first_line(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return "-"


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return "-"
