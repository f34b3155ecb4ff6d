"""Time between two points of the loop, as the device sees it, without stopping it to look.

On a GPU the host runs ahead of the device and its own clock would time how fast work is handed over; CUDA events
are stamped when the device gets there, and are read at a log line.
"""

from __future__ import annotations

import time

import torch

Mark = torch.cuda.Event | float


class Clock:
    """Marks points in time on one device."""

    def __init__(self, device: torch.device) -> None:
        self.on_gpu = device.type == "cuda"

    def now(self) -> Mark:
        """This point of the device's work."""
        if not self.on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def seconds_between(begin: Mark, end: Mark) -> float:
    """Seconds from one mark to the other; waits until the device has passed both."""
    if isinstance(begin, float) or isinstance(end, float):
        assert isinstance(begin, float) and isinstance(end, float)
        return end - begin
    end.synchronize()
    return begin.elapsed_time(end) / 1000
