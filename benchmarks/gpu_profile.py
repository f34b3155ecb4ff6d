"""Which kernels an iteration spends its time in."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

from table import table

ITERATIONS = 3


def longest_kernels(step: Callable[[], object], count: int = 10) -> str:
    """A table of the longest kernels by total time, and what all of them together take."""
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        for _ in range(ITERATIONS):
            step()
        torch.cuda.synchronize()
    events = [event for event in seen.key_averages() if event.self_device_time_total > 0]
    events.sort(key=lambda event: -event.self_device_time_total)
    total = sum(event.self_device_time_total for event in events)
    rows = [
        (
            event.key[:90],
            f"{event.self_device_time_total / ITERATIONS / 1000:.3f}",
            f"{event.self_device_time_total / total:.1%}",
            f"{event.count / ITERATIONS:.0f}",
        )
        for event in events[:count]
    ]
    launches = sum(event.count for event in events) / ITERATIONS
    rows.append(("all", f"{total / ITERATIONS / 1000:.3f}", "100%", f"{launches:.0f}"))
    return table(("kernel", "ms", "share", "times"), rows)
