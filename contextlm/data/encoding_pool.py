"""Batches through worker processes: in order, a few at a time, with every core busy.

Processes rather than threads, although most tokenizer libraries let others run meanwhile: parsing and joining are
Python's, and some libraries hold its lock. A worker takes whole batches and encodes them on one thread, so nothing
is shared but the two pipes. Read next: `document_encoding.py`, what a worker does with a batch.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from contextlm.data.document_encoding import EncodedBatch, EncodingSettings, encode_batch, prepare
from contextlm.data.sources.batches import Batch
from contextlm.errors import UserError

BATCHES_AHEAD_PER_WORKER = 4
BYTES_AHEAD = 64 << 20  # Batches are small; only a huge document can make one that reaches this.
# Starting a process costs as much as tokenizing some megabytes.
BYTES_PER_WORKER = 4 << 20


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class EncodingPool:
    """A context manager that encodes batches with `workers` processes, or in this one if there is but one.

    The workers start at once, so that they load their tokenizers while the caller prepares what it needs.
    """

    def __init__(self, settings: EncodingSettings, workers: int) -> None:
        self._settings = settings
        self._workers = workers
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> EncodingPool:
        if self._workers > 1:
            # Spawned, not forked: a progress display may already run a thread, which a fork would tear.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self._workers, context, _start_worker)
            for _ in range(self._workers):
                self._pool.submit(prepare, self._settings)
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def encode(self, batches: Iterable[Batch]) -> Iterator[EncodedBatch]:
        """What `encode_batch` gives for each batch, in order.

        Raises:
            UserError: a worker died.
        """
        if self._pool is None:
            yield from (encode_batch(self._settings, batch) for batch in batches)
            return
        pending: deque[tuple[int, Future[EncodedBatch]]] = deque()
        ahead = 0
        try:
            for batch in batches:
                while pending and (len(pending) >= BATCHES_AHEAD_PER_WORKER * self._workers or ahead > BYTES_AHEAD):
                    size, future = pending.popleft()
                    ahead -= size
                    yield future.result()
                size = sum(piece.in_memory for piece in batch.pieces)
                pending.append((size, self._pool.submit(encode_batch, self._settings, batch)))
                ahead += size
            while pending:
                yield pending.popleft()[1].result()
        except BrokenProcessPool:
            raise UserError(
                f"--workers {self._workers}: a worker process died, most often for want of memory; use fewer workers"
            ) from None


def _start_worker() -> None:
    """In a new worker: leave interrupts to the parent, and go when it is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_leave_with, args=(parent.sentinel,), daemon=True).start()


def _leave_with(sentinel: int) -> None:
    # A parent that is killed closes no queue: its workers would wait for the next batch for ever.
    multiprocessing.connection.wait([sentinel])
    os._exit(1)
