"""Where the threads of this process are: frames for a line of words, stacks for a file."""

from __future__ import annotations

import contextlib
import faulthandler
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TextIO

_SHOWN_FRAMES = 4
# Whose innermost frames are in one of these waits for another rank.
_COLLECTIVES = ("distributed_c10d.py", "p2p_communication.py", "param_and_grad_buffer.py")


def innermost_frames() -> tuple[str, ...]:
    """The innermost frames of the main thread, innermost first: `file:line function`."""
    main = sys._current_frames().get(threading.main_thread().ident or 0)
    return tuple(
        f"{'/'.join(Path(frame.f_code.co_filename).parts[-2:])}:{frame.f_lineno} {frame.f_code.co_name}"
        for frame in _innermost(main)
    )


def is_in_a_collective() -> bool:
    """Whether a thread of this process, but for the one that asks, waits for other ranks."""
    others = [frame for thread, frame in sys._current_frames().items() if thread != threading.get_ident()]
    return any(Path(inner.f_code.co_filename).name in _COLLECTIVES for frame in others for inner in _innermost(frame))


def _innermost(frame: FrameType | None) -> Iterator[FrameType]:
    """A frame and those that called it, the innermost few."""
    for _ in range(_SHOWN_FRAMES):
        if frame is None:
            return
        yield frame
        frame = frame.f_back


class StacksFile:
    """`<folder>/stacks/rank_N.txt`, which is there after the run only if something was written.

    Args:
        folder: None writes nothing.
    """

    def __init__(self, folder: str | None, rank: int) -> None:
        self.path = None if folder is None else Path(folder) / "stacks" / f"rank_{rank}.txt"
        self._file: TextIO | None = None
        if self.path is not None:
            with contextlib.suppress(OSError):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = open(self.path, "a")

    def write(self, words: str) -> None:
        """Add the stacks of all threads."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {words}\n")
                self._file.flush()
                faulthandler.dump_traceback(self._file)

    def write_unless_asked_again(self, seconds: float) -> None:
        """Have them written after so many seconds in which nobody has asked for this again.

        Nothing in Python can write them while an extension holds the interpreter; this is a thread that needs none.
        """
        if self._file is not None:
            faulthandler.dump_traceback_later(seconds, file=self._file)

    def close(self) -> None:
        """Leave no empty file."""
        if self._file is None or self.path is None:
            return
        faulthandler.cancel_dump_traceback_later()
        self._file.close()
        self._file = None
        with contextlib.suppress(OSError):
            if self.path.stat().st_size == 0:
                self.path.unlink()
                self.path.parent.rmdir()  # unless another rank has written
