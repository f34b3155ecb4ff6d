"""What the verdict must notice: a product that is broken in a way that a fault brings to light.

Each is a patch, as in `sabotaged.py`, of the run that continues after the fault, and words of the verdict on it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, cast

Tell = Callable[[], None]


def forgotten_generators(tell: Tell) -> None:
    """Dropout begins anew."""
    from contextlm.checkpoints import rng_state

    rng_state.restore = lambda states: tell()


def forgotten_position(tell: Tell) -> None:
    """The run continues with samples that it has seen."""
    from contextlm.training.setup import Run

    original = Run.micro_batches

    def sabotaged(self: Run, samples: object, first_sample: int, *rest: object) -> object:
        tell()
        return original(self, samples, max(0, first_sample - 4), *rest)

    cast(Any, Run).micro_batches = sabotaged


def kept_lines(tell: Tell) -> None:
    """Iterations that are trained again are told twice."""
    from contextlm.training.metrics_file import MetricsFile

    MetricsFile.cut_back = lambda self, iteration: tell() or 0


def orphan(tell: Tell) -> None:
    """A process that nobody knows of goes on."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(3600)
        os._exit(0)


def hang(tell: Tell) -> None:
    """It never gets anywhere."""
    time.sleep(3600)


CONTROLS = (forgotten_generators, forgotten_position, kept_lines, orphan, hang)
WORDS = {
    "forgotten_generators": "iteration 4 differs",
    "forgotten_position": "iteration 4 differs",
    "kept_lines": "metrics.jsonl has the lines",
    "orphan": "processes go on after their job has ended",
    "hang": "a hang",
}
