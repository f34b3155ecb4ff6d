"""Stops that come from outside: a signal before preemption, Ctrl-C, or the end of the time that the job has.

Each rank notices for itself, and all must stop after the same iteration: one that stops alone leaves the others
waiting for it. So about once a second, and at least once an iteration where those are longer, the hosts ask each other.
A rank that died cannot answer. So a SIGTERM that torchrun sends to the survivors of a failure saves nothing: they fail
when they ask.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

import psutil

from contextlm.parallel.agreement import Agreement
from contextlm.training import exit_status

if TYPE_CHECKING:
    from contextlm.training.setup import Run

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
SECONDS_BETWEEN_QUESTIONS = 1.0
# A scheduler that signals torchrun and its ranks makes torchrun pass the same signal on: one request, not two.
SECONDS_OF_ONE_REQUEST = 1.0


class Stopping:
    """A context manager around the loop, which asks it once after each iteration.

    Attributes:
        signal_name: the signal that ended the loop, the same on every rank; None if none did.
    """

    def __init__(self, run: Run, hosts: Agreement, say: Callable[[str], None]) -> None:
        self.signal_name: str | None = None
        self._output_dir, self._hosts, self._say = run.config.output_dir, hosts, say
        self._where, self._seconds_to_save = run.where, run.config.training.signal_save_timeout_seconds
        limit = run.config.training.exit_duration_in_mins
        self._deadline = None if limit is None else psutil.Process().create_time() + 60 * limit
        # Without --save there is nothing that a handler could keep.
        self._saves = run.config.checkpoint.save is not None
        self._handles = run.config.training.exit_signal_handler and self._saves
        self._before: dict[signal.Signals, Any] = {}
        self._received: tuple[int, float] | None = None  # the first signal, and when it came
        self._iterations, self._left, self._asked_at = 1, 1, time.monotonic()

    def __enter__(self) -> Stopping:
        if self._handles:
            # A job in the background was told to ignore Ctrl-C, which is for what runs in the foreground.
            wanted = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._receive) for number in wanted}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def wanted(self) -> bool:
        """Whether to save and stop after this iteration; collective, and the same answer for all."""
        self._left -= 1
        if self._left > 0 or not (self._handles or self._deadline):
            return False
        now = time.monotonic()
        pace = self._iterations / max(now - self._asked_at, 1e-6)
        is_late = self._deadline is not None and time.time() >= self._deadline
        received = self._received[0] if self._received else 0
        number, late, until_next = self._hosts.largest(received, is_late, max(1, int(pace * SECONDS_BETWEEN_QUESTIONS)))
        self._iterations = self._left = int(until_next)
        self._asked_at = now
        if number:
            self.signal_name = signal.Signals(int(number)).name
            self._say(f"{self.signal_name}: saving, then exit with status {exit_status.PREEMPTED}")
        elif late:
            what_then = "saving, then exit" if self._saves else "exit; without --save nothing is saved"
            self._say(f"--exit-duration-in-mins is over: {what_then}")
        return bool(number or late)

    def saved(self) -> None:
        """Record the status that a signal asks for, now: closing trackers may take longer than is left."""
        self._where.leaves_by = None
        if self.signal_name is not None:
            exit_status.write_preemption(self._output_dir, self.signal_name)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        """The first signal is remembered, a second one ends the process."""
        now = time.monotonic()
        if self._received is None:
            self._received = (number, now)
            self._where.leaves_by = now + self._seconds_to_save
        elif now - self._received[1] > SECONDS_OF_ONE_REQUEST:
            name = signal.Signals(number).name
            exit_status.write_failure(self._output_dir, RuntimeError(f"a second signal, {name}: left without saving"))
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
