"""Time that is short: what may still begin, and the windows in which speed is measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

FIRST_SECONDS, FIRST_SECONDS_OF_1B = 60.0, 120.0  # to build, compile and warm up, until a trainer has told its own


class Budget:
    """The minutes of a call, from here on.

    Args:
        minutes: after which nothing may run any more.
        now: seconds since some moment.
    """

    def __init__(self, minutes: float, now: Callable[[], float] = time.monotonic) -> None:
        self._now, self._end = now, now() + 60 * minutes

    def allows(self, seconds: float) -> bool:
        """Whether what takes so long can be finished."""
        return self._now() + seconds <= self._end


def first_seconds(found: Mapping[str, Any], trainer: str, num_parameters: int) -> float:
    """How long a trainer takes until it is warm: as once before, or as the slowest other one of this model."""
    told = {name: result["first_seconds"] for name, result in found.items() if "first_seconds" in result}
    if told:
        return float(told.get(trainer, max(told.values())))
    return FIRST_SECONDS_OF_1B if num_parameters >= 1e9 else FIRST_SECONDS


def window(step: Callable[[], object], seconds: float, burst: int = 5) -> float:
    """Iterations per second, over at least so many seconds; the device is waited for after each burst of them."""
    synchronize()
    began, count = time.perf_counter(), 0
    while not count or time.perf_counter() - began < seconds:
        for _ in range(burst):
            step()
        synchronize()
        count += burst
    return count / (time.perf_counter() - began)


def synchronize() -> None:
    """Wait for the device, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
