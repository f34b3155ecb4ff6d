"""Programs that other programs start: their output goes to a file, and none outlives who started it.

Used by the quickstart and by `tools/compare.py`, which run commands that can be typed by hand.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

PR_SET_PDEATHSIG = 1  # Linux: have the kernel send the child a signal when its parent dies


@contextlib.contextmanager
def child(
    command: Sequence[str], folder: Path, output: IO[bytes], environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """The running command; it ends with us, whatever ends us.

    Args:
        folder: where it runs.
        output: takes what it prints, errors included.
        environment: all of its variables.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def die_with_parent() -> None:
        if libc is not None:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

    process = subprocess.Popen(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,
        preexec_fn=die_with_parent,
        close_fds=False,  # the child shares our lock, so that the job counts as running until both are gone
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()  # torchrun passes it on, and the ranks save
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def only_one(job: str, folder: Path, say: Callable[[str], None], patience: float = 60.0) -> Iterator[None]:
    """Holds the lock of `folder`; waits up to `patience` seconds for what a killed job left running.

    Args:
        job: what the user calls it, e.g. "quickstart".

    Raises:
        TimeoutError: another job keeps running there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a") as lock:
        os.set_inheritable(lock.fileno(), True)
        deadline = time.monotonic() + patience
        said = False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    message = f"another {job} is running in {folder}; wait for it, or stop it"
                    raise TimeoutError(message) from None
                if not said:
                    say(f"waiting for another {job} in {folder} to end")
                    said = True
                time.sleep(0.2)
        yield


def tail(file: Path, size: int = 8192) -> str:
    """The last `size` bytes of a file as text; empty where there is no file."""
    try:
        with file.open("rb") as stream:
            stream.seek(max(0, file.stat().st_size - size))
            return stream.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
