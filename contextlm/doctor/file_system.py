"""The file system of a folder: does it keep what a checkpoint and a lock rely on, and how fast."""

from __future__ import annotations

import os
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from contextlm import lock_files
from contextlm.byte_words import size
from contextlm.doctor.finding import OK, PROBLEM, WARNING, Finding
from contextlm.preflight.folders import nearest

_LEAST_FREE = 10 * 10**9
_SLOW_SECONDS = 1.0
_CLOCK_SECONDS = 5.0
_PROBE = b"x" * (1 << 20)


def file_system(folder: str) -> Iterator[Finding]:
    """Room, then each operation that a run needs, with its time."""
    place = nearest(folder)
    usage = shutil.disk_usage(place)
    state, remedy = (OK, "") if usage.free >= _LEAST_FREE else (WARNING, "make room: checkpoints are large")
    words = f"{place}: {size(usage.free)} free of {size(usage.total)}, {_kind(place)}"
    yield Finding("files", "disk", words, state, remedy)
    probe = place / f".doctor.{socket.gethostname()}.{uuid.uuid4().hex}"
    try:
        probe.mkdir()
        yield from _operations(probe)
    except OSError as error:
        remedy = "give a folder that can be written to: --dir"
        yield Finding("files", "writing", f"{place}: {error.strerror}", PROBLEM, remedy)
    finally:
        shutil.rmtree(probe, ignore_errors=True)


def _operations(probe: Path) -> Iterator[Finding]:
    first, second, lock = probe / "first", probe / "second", probe / "lock"
    yield _timed("write and fsync 1 MiB", lambda: _write(first))
    yield _timed("rename", lambda: _rename(first, second))
    yield _timed("lock", lambda: _lock(lock))
    clock = probe / "clock"
    clock.touch()
    ahead = time.time() - clock.stat().st_mtime
    words = f"this host's clock is {abs(ahead):.1f} s {'ahead of' if ahead >= 0 else 'behind'} that of the file system"
    is_off = abs(ahead) > _CLOCK_SECONDS
    remedy = "set it (NTP): times in logs and of files do not agree; locks do not rely on it" if is_off else ""
    yield Finding("files", "clock", words, WARNING if is_off else OK, remedy)


def _timed(name: str, work: Callable[[], str | None]) -> Finding:
    """What an operation is like; its work says what is wrong, if anything."""
    began = time.perf_counter()
    wrong = work()
    seconds = time.perf_counter() - began
    if wrong is not None:
        return Finding("files", name, wrong, PROBLEM, "save on another file system")
    slow = seconds > _SLOW_SECONDS
    remedy = "look for what is slow: every save waits for it" if slow else ""
    return Finding("files", name, f"{seconds * 1000:.1f} ms", WARNING if slow else OK, remedy)


def _write(path: Path) -> None:
    with open(path, "wb") as stream:
        stream.write(_PROBE)
        stream.flush()
        os.fsync(stream.fileno())


def _rename(first: Path, second: Path) -> str | None:
    second.write_bytes(b"old")
    os.replace(first, second)
    return None if second.stat().st_size == len(_PROBE) and not first.exists() else "did not replace the other file"


def _lock(lock: Path) -> str | None:
    made = [lock_files.create(lock, lock_files.this_process()) for _ in range(2)]
    return None if made == [True, False] else "was given twice: two jobs could save in one folder"


def _kind(place: Path) -> str:
    """The type of the file system that holds a folder."""
    mounts = [part for part in psutil.disk_partitions(all=True) if place.is_relative_to(part.mountpoint)]
    return max(mounts, key=lambda part: len(part.mountpoint)).fstype if mounts else "of an unknown type"
