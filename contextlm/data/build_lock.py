"""One process at a time builds a file, among the processes of all hosts that share a file system.

The lock is a file beside it that only one process can create. Its owner touches it every few seconds; one that is
dead, which on its own host is seen at once and from elsewhere after a minute without a touch, is put aside. Should two
processes build after all (an owner that froze for a minute), both write the same bytes under names of their own and
rename them: the lock saves work, and nothing depends on it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

HEARTBEAT_SECONDS = 5.0
SILENT_SECONDS = 60.0
POLL_SECONDS = 0.1


@contextlib.contextmanager
def claimed(lock: Path) -> Iterator[bool]:
    """Create the lock and hold it inside, or learn that another process has it.

    Raises:
        OSError: no file can be made there.
    """
    try:
        descriptor = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        yield False
        return
    with os.fdopen(descriptor, "w") as stream:
        stream.write(_this_process())
    ended = threading.Event()
    threading.Thread(target=_beat, args=(lock, ended), name="build lock", daemon=True).start()
    try:
        yield True
    finally:
        ended.set()
        _remove(lock, _this_process())


def wait(lock: Path) -> None:
    """Return when the lock is gone: its owner is done, or dead and put aside."""
    seen, since = _state(lock), time.monotonic()
    while seen is not None:
        owner, _ = seen
        if time.monotonic() - since > SILENT_SECONDS or _is_dead(owner):
            _remove(lock, owner)
            return
        time.sleep(POLL_SECONDS)
        if (now := _state(lock)) != seen:
            seen, since = now, time.monotonic()


def _this_process() -> str:
    """Host, namespace of process numbers (a container has its own), and number; complete with its final newline."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = "-"
    return f"{socket.gethostname()} {namespace} {os.getpid()}\n"


def _is_dead(owner: str) -> bool:
    """Whether an owner that would be in sight is not there; False where that cannot be seen."""
    *place, number = owner.split() or [""]
    if not owner.endswith("\n") or place != _this_process().split()[:-1]:
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False


def _beat(lock: Path, ended: threading.Event) -> None:
    while not ended.wait(HEARTBEAT_SECONDS):
        with contextlib.suppress(OSError):
            os.utime(lock)


def _state(lock: Path) -> tuple[str, int] | None:
    """Owner and time of the last touch, by the clock of the file system; None without a lock."""
    try:
        return lock.read_text(), lock.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def _remove(lock: Path, owner: str) -> None:
    """Remove the lock if it is still that owner's."""
    with contextlib.suppress(OSError):
        if lock.read_text() == owner:
            lock.unlink()
