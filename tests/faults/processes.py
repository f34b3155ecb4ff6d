"""Which processes a trial has started, whoever their parent is by now, and how they are ended."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time

import psutil

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def adopt_orphans() -> None:
    """From here on a descendant whose parent dies becomes our child: none can hide."""
    if ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError("prctl(PR_SET_CHILD_SUBREAPER) failed: orphans could not be found")


def follow_the_parent() -> None:
    """Be sent SIGTERM when the parent is gone, however it went."""
    if ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        raise OSError("prctl(PR_SET_PDEATHSIG) failed: what a killed soak leaves would go on")


def living() -> list[psutil.Process]:
    """All descendants that still run."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def left_over(seconds: float) -> list[psutil.Process]:
    """The descendants that still run after a while; returns early if there are none."""
    end = time.monotonic() + seconds
    while (found := living()) and time.monotonic() < end:
        time.sleep(0.02)
    _reap()
    return found


def end_all() -> None:
    """Kill every descendant."""
    while found := living():
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)
        _reap()
        time.sleep(0.01)
    _reap()


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
