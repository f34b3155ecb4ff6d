"""Turns samples into micro-batches, a few ahead of the training loop.

Which samples a global batch holds depends on its first sample alone; the data-parallel ranks only share
it out. The samples come from `samples.py` or `blended_samples.py`.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator

import numpy as np
import torch

from contextlm.data.samples import Samples

PREFETCHED_MICRO_BATCHES = 4
POLL_SECONDS = 0.1

Stream = Generator[torch.Tensor, None, None]  # of micro-batches; closing it ends what reads ahead


def micro_batches(
    samples: Samples,
    first_sample: int,
    micro_batch_size: int,
    data_parallel_rank: int,
    data_parallel_size: int,
    num_microbatches: int | Callable[[int], int],
    last_sample: int | None = None,
) -> Stream:
    """Micro-batches of one data-parallel rank, int64 `[micro_batch_size, seq_length + 1]`, on the CPU.

    Micro-batch m of the iteration that starts at sample n is n + m B D + rank B + (0 .. B-1), with B =
    micro_batch_size and D = data_parallel_size: the iteration's samples are n .. n + num_microbatches B D - 1
    for every layout. The memory is pinned where CUDA is.

    Args:
        first_sample: first sample of the first iteration.
        num_microbatches: micro-batches of each rank per iteration, or a function that says how many the iteration
            has that begins at a sample.
        last_sample: end (exclusive); an iteration that would pass it is not begun. Endless if not given.

    Raises:
        What reading a sample raises is raised at the `next` that would have returned it.
    """
    at = num_microbatches if callable(num_microbatches) else lambda sample: num_microbatches
    per_rank = (micro_batch_size, data_parallel_size, at(first_sample))
    if min(per_rank) < 1 or first_sample < 0 or not 0 <= data_parallel_rank < data_parallel_size:
        raise ValueError(f"first sample {first_sample}, rank {data_parallel_rank}, sizes {per_rank}")
    stride = micro_batch_size * data_parallel_size

    def starts() -> Iterator[int]:
        iteration_start = first_sample
        while last_sample is None or iteration_start + stride * at(iteration_start) <= last_sample:
            for m in range(at(iteration_start)):
                yield iteration_start + m * stride + data_parallel_rank * micro_batch_size
            iteration_start += stride * at(iteration_start)

    def batches() -> Iterator[torch.Tensor]:
        pin = torch.cuda.is_available()
        for start in starts():
            batch = torch.from_numpy(np.stack([samples.sample(start + i) for i in range(micro_batch_size)]))
            yield batch.pin_memory() if pin else batch

    return _prefetched(batches())


def _prefetched(items: Iterator[torch.Tensor]) -> Stream:
    """The same items, produced by a background thread that ends when this generator is closed or dropped."""
    ready: queue.Queue = queue.Queue(maxsize=PREFETCHED_MICRO_BATCHES)
    stop = threading.Event()
    end = object()

    def put(item: object) -> None:
        while not stop.is_set():
            try:
                return ready.put(item, timeout=POLL_SECONDS)
            except queue.Full:
                continue

    def produce() -> None:
        try:
            for item in items:
                put(item)
                if stop.is_set():
                    return
            put(end)
        except BaseException as error:  # Whatever it is belongs to the consumer.
            put(error)

    thread = threading.Thread(target=produce, name="micro-batches", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not end:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()
