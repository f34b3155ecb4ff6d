"""The batch size of an iteration: a function of the samples consumed, so that resuming needs no state.

And what follows from it: how many iterations a number of samples is enough for, and the other way round.
"""

from __future__ import annotations

import dataclasses
from bisect import bisect_right

from contextlm.config.schema import Config


def with_batch_size(config: Config, world_size: int) -> Config:
    """The same run said so that it is the same under any number of processes: with its global batch size."""
    size = config.global_batch_size(world_size)
    return dataclasses.replace(config, training=dataclasses.replace(config.training, global_batch_size=size))


def batch_size_at(config: Config, world_size: int, consumed_samples: int) -> int:
    """Samples of the iteration that begins after `consumed_samples`.

    With `--rampup-batch-size START INCREMENT SAMPLES` it grows from START to the global batch size in steps of
    INCREMENT, each after an equal share of SAMPLES, as in Megatron-LM.
    """
    full = config.global_batch_size(world_size)
    if not config.training.rampup_batch_size:
        return full
    start, increment, samples = (int(word) for word in config.training.rampup_batch_size)
    num_increments = (full - start) // increment
    if num_increments == 0 or consumed_samples > samples:
        return full
    return min(full, start + int(consumed_samples / (samples / num_increments)) * increment)


def samples_after(config: Config, world_size: int, num_iterations: int) -> int:
    """Samples that the first `num_iterations` iterations consume; a step of the ramp is one step of the search."""
    consumed, left = 0, num_iterations
    while left > 0:
        size = batch_size_at(config, world_size, consumed)
        count = _iterations_of_size(size, config, world_size, consumed, left)
        consumed, left = consumed + count * size, left - count
    return consumed


def num_iterations(config: Config, world_size: int) -> int:
    """Iterations of the whole run: `--train-iters`, or those that `--train-samples` are enough for; 0 if not given.

    What is left of the samples is less than the next batch. (Megatron-LM begins a batch that it has no samples for
    where a run ends within its ramp.)
    """
    samples, consumed, iterations = config.training.train_samples, 0, 0
    if samples is None:
        return config.training.train_iters or 0
    while (size := batch_size_at(config, world_size, consumed)) <= samples - consumed:
        count = _iterations_of_size(size, config, world_size, consumed, (samples - consumed) // size)
        consumed, iterations = consumed + count * size, iterations + count
    return iterations


def _iterations_of_size(size: int, config: Config, world_size: int, consumed: int, at_most: int) -> int:
    """How many iterations after `consumed` samples have batches of `size` samples, before those that have more."""

    def size_after(iterations: int) -> int:
        return batch_size_at(config, world_size, consumed + iterations * size)

    return bisect_right(range(at_most), size, key=size_after)
