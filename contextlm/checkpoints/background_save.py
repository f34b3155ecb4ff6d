"""One checkpoint on its way to the disk, while training goes on.

All ranks write their shards, each from threads of its own. When all have, the first one completes the folder and
publishes it, in a thread too. The hosts ask each other how far they are; no thread talks to another rank.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent import futures
from concurrent.futures import Future
from typing import Any

from contextlm.checkpoints import checkpoint_folder
from contextlm.checkpoints.background import in_background
from contextlm.checkpoints.shards import Piece, Shards
from contextlm.parallel.agreement import Agreement, Problems

SECONDS_BETWEEN_QUESTIONS = 1.0
SECONDS_TO_END = 10.0


class BackgroundSave:
    """All ranks have one, and ask it the same questions in the same order.

    Args:
        iteration: of the run.
        shards: this rank's, on the host.
        publish: what the first rank does, with the pieces of all ranks, when everything is written.
        hosts: to ask.
        rank: of this process.

    Attributes:
        problems: why it failed, on every rank; None while it is under way.
    """

    def __init__(
        self,
        iteration: int,
        shards: Shards,
        publish: Callable[[Sequence[Piece]], None],
        hosts: Agreement,
        rank: int,
    ) -> None:
        self.iteration = iteration
        self.problems: Problems | None = None
        self._folder, self._publish, self._hosts, self._rank = shards.folder, publish, hosts, rank
        self._called_off = threading.Event()
        self._jobs: list[Future[Any]] = shards.write(self._called_off)
        self._is_written = False

    def advance(self) -> bool:
        """Go on if all ranks are done with what they do; collective. Returns whether the save is over."""
        (is_running,) = self._hosts.largest(any(not job.done() for job in self._jobs))
        if is_running:
            return False
        problems = self._hosts.problems(next((_words(job) for job in self._jobs if job.exception()), ""))
        if problems and self._rank == 0:
            checkpoint_folder.discard(self._folder)
        if problems or self._is_written:
            self.problems = problems
            return True
        self._is_written = True
        gathered = self._hosts.gathered([job.result() for job in self._jobs])
        self._jobs = []
        if gathered is not None:
            pieces = [piece for pieces in gathered for piece in pieces]
            self._jobs = [in_background(lambda: self._publish(pieces))]
        return False

    def wait(self) -> None:
        """Until it is over; collective. A rank that is gone is noticed with the next question."""
        while not self.advance():
            futures.wait(self._jobs, timeout=SECONDS_BETWEEN_QUESTIONS)

    def abandon(self) -> None:
        """Leave it as it is, for the process ends: `iter_*.tmp`, unless it was about to be published."""
        self._called_off.set()
        # A thread that is still in torch when the interpreter ends would abort the process.
        futures.wait(self._jobs, timeout=SECONDS_TO_END)


def _words(job: Future[Any]) -> str:
    error = job.exception()
    return str(error).strip() or type(error).__name__
