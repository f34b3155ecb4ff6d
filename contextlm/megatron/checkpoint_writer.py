"""Write a checkpoint's tensors from threads of this process.

What is wrong: for a save that its caller waits for, `FileSystemWriterAsync` (dist_checkpointing/strategies/
filesystem_async.py) starts a manager process, which imports the whole program again (seconds of CPU on every rank)
and outlives a rank that is killed, and forks two writers from a process full of threads; if one of them is killed,
`count_queue.join` waits for ever.
The mend: the same files, written by two threads, with a queue of this process for the results.
Test: tests/unit/megatron/test_checkpoint_writer.py.
"""

from __future__ import annotations

import inspect
import queue
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from megatron.core.dist_checkpointing.strategies import filesystem_async
from megatron.core.dist_checkpointing.strategies.filesystem_async import FileSystemWriterAsync

from contextlm.megatron.rewrite import SourceChanged

_FORK, _MANAGER = 'ctx = mp.get_context("fork")', "ctx.Manager().Queue()"


def write_buckets_from_threads(
    transform_list: list[Any], use_msc: bool, rank: int, write_buckets: Sequence[Any], results: queue.Queue
) -> None:
    """Write every bucket to its file, and put what was written, by bucket, or the first error into `results`."""
    written: queue.Queue = queue.Queue()
    with ThreadPoolExecutor(max_workers=len(write_buckets)) as threads:
        for index, bucket in enumerate(write_buckets):
            threads.submit(_write, transform_list, index, bucket, written, use_msc)
    found = dict(written.get_nowait() for _ in write_buckets)
    results.put(next((x for x in found.values() if isinstance(x, Exception)), found))


def _write(transform_list: list[Any], index: int, bucket: Any, written: queue.Queue, use_msc: bool) -> None:
    """One bucket, with megatron-core's own function; it reports errors as it reports results."""
    counted: queue.Queue = queue.Queue()
    counted.put(index)
    FileSystemWriterAsync.write_preloaded_data(
        transform_list, index, bucket, written, counted, use_fsync=True, use_msc=use_msc
    )


def install() -> None:
    """Apply the mend; calling it again changes nothing."""
    if FileSystemWriterAsync.write_preloaded_data_multiproc is write_buckets_from_threads:
        return
    for function, piece in (
        (FileSystemWriterAsync.write_preloaded_data_multiproc, _FORK),
        (filesystem_async._get_write_results_queue, _MANAGER),
    ):
        if piece not in inspect.getsource(inspect.unwrap(function)):
            raise SourceChanged(f"{function.__qualname__}: is this mend still needed?")
    FileSystemWriterAsync.write_preloaded_data_multiproc = staticmethod(write_buckets_from_threads)
    filesystem_async._get_write_results_queue = queue.Queue
