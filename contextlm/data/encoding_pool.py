"""Batches through worker processes: in order, a few at a time, with every core busy.

Processes rather than threads: parsing and joining are Python's, and the quickest tokenizers hold its lock. A worker
takes whole batches and encodes them on one thread. Read next: `document_encoding.py`, what it does with a batch.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from contextlm.data.document_encoding import EncodedBatch, EncodingSettings, encode_batch
from contextlm.data.sources.batches import Batch
from contextlm.errors import UserError

BATCHES_AHEAD_PER_WORKER = 4
BYTES_AHEAD = 64 << 20  # Batches are small; only a huge document can make one that reaches this.


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def encode_batches(
    settings: EncodingSettings, batches: Iterator[Batch], workers: int
) -> Generator[EncodedBatch, None, None]:
    """What `encode_batch` gives for each batch, in order.

    The first batch is encoded in this process. The workers start then, as copies of it where they can be: with a
    tokenizer that is loaded and checked. They end when the iterator ends or is closed.

    Raises:
        UserError: a worker died.
    """
    first = next(batches, None)
    if first is None:
        return
    encoded = encode_batch(settings, first)
    if workers == 1:
        yield encoded
        yield from (encode_batch(settings, batch) for batch in batches)
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context(_start_method()), _start_worker)
    try:
        for _ in range(workers):
            pool.submit(int)  # All are to start before the caller opens files, which copies of it would keep open.
        yield encoded
        yield from _through(pool, settings, batches, workers)
    except BrokenProcessPool:
        raise UserError(
            f"--workers {workers}: a worker process died, most often for want of memory; use fewer workers"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _through(
    pool: ProcessPoolExecutor, settings: EncodingSettings, batches: Iterator[Batch], workers: int
) -> Iterator[EncodedBatch]:
    pending: deque[tuple[int, Future[EncodedBatch]]] = deque()
    ahead = 0
    for batch in batches:
        while pending and (len(pending) >= BATCHES_AHEAD_PER_WORKER * workers or ahead > BYTES_AHEAD):
            size, future = pending.popleft()
            ahead -= size
            yield future.result()
        size = sum(piece.in_memory for piece in batch.pieces)
        pending.append((size, pool.submit(encode_batch, settings, batch)))
        ahead += size
    while pending:
        yield pending.popleft()[1].result()


def _start_method() -> str:
    """`fork` where no thread can be torn by it, else `spawn`, which takes half a second longer."""
    try:
        return "fork" if len(os.listdir("/proc/self/task")) == 1 else "spawn"
    except OSError:
        return "spawn"  # not Linux


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
