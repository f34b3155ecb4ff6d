"""One process at a time builds a file, among the processes of all hosts that share a file system.

The lock (`lock_files.py`) is a file beside it. An owner who is dead, which on its own host is seen at once and from
elsewhere after a minute without a touch, is put aside. Should two processes build after all (an owner that froze for a
minute), both write the same bytes under names of their own and rename them: the lock saves work, and nothing depends
on it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from contextlm import lock_files

POLL_SECONDS = 0.1


@contextlib.contextmanager
def claimed(lock: Path) -> Iterator[bool]:
    """Create the lock and hold it inside, or learn that another process has it.

    Raises:
        OSError: no file can be made there.
    """
    owner = lock_files.this_process()
    if not lock_files.create(lock, owner):
        yield False
        return
    try:
        with lock_files.Heartbeat(lambda: os.utime(lock), name="build lock"):
            yield True
    finally:
        lock_files.remove(lock, owner)


def wait(lock: Path) -> None:
    """Return when the lock is gone: its owner is done, or dead and put aside."""
    seen, since = _state(lock), time.monotonic()
    while seen is not None:
        owner, _ = seen
        if time.monotonic() - since > lock_files.SILENT_SECONDS or lock_files.is_dead(owner):
            lock_files.remove(lock, owner)
            return
        time.sleep(POLL_SECONDS)
        if (now := _state(lock)) != seen:
            seen, since = now, time.monotonic()


def _state(lock: Path) -> tuple[str, int] | None:
    """Owner and time of the last touch, by the clock of the file system; None without a lock."""
    try:
        return lock.read_text(errors="replace"), lock.stat().st_mtime_ns
    except FileNotFoundError:
        return None
