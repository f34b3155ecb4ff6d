"""Where a rank is in its run: whoever begins a piece of work says so, in one line.

The watchdog reads it from a thread of its own, and the words for memory that ran out do. Saying it costs nothing.
"""

from __future__ import annotations

from typing import NamedTuple

OPENING_TOKENIZER, OPENING_DATA = "opening the tokenizer", "opening the data"
DATA, COMPUTATION, UPDATE = "waiting for data", "forward and backward", "update of the weights"
LOG_LINE, EVALUATION = "log line", "evaluation"
SAVING = "saving"
# What goes on by itself every few moments. Anything else, a start, a save, a tracker, may take as long as it likes.
_MOVING = (DATA, COMPUTATION, UPDATE, LOG_LINE, EVALUATION)


class Place(NamedTuple):
    """A point of a run.

    Attributes:
        phase: what is being done.
        iteration: which iteration does it, from 1, or the last one that is done; 0 before the first.
        forward_pass: which micro-batch of that iteration, from 1 (of an interleaved pipeline, of each model chunk).
    """

    phase: str
    iteration: int = 0
    forward_pass: int | None = None

    @property
    def is_moving(self) -> bool:
        """Whether it is part of what never takes long."""
        return self.phase in _MOVING

    def __str__(self) -> str:
        number = "" if self.forward_pass is None else f", forward pass {self.forward_pass}"
        return f"{self.phase}, iteration {self.iteration}{number}" if self.iteration else self.phase


class Whereabouts:
    """Where this rank is now.

    Attributes:
        now: replaced, never changed: another object is another moment, also where it reads the same.
        first_iteration: the first that this process trained; None before it.
        leaves_by: when the process must have ended after a signal (`time.monotonic`); None without one.
    """

    def __init__(self) -> None:
        self.now = Place("start")
        self.first_iteration: int | None = None
        self.leaves_by: float | None = None

    def at(self, phase: str, iteration: int | None = None, forward_pass: int | None = None) -> None:
        """Say what begins now; the iteration is that of before if it is not given."""
        self.now = Place(phase, self.now.iteration if iteration is None else iteration, forward_pass)
        if self.first_iteration is None and phase in (DATA, COMPUTATION):
            self.first_iteration = self.now.iteration
