"""Micro-batches: the same global batch under every layout, a clean end, errors that reach the loop."""

from __future__ import annotations

import itertools
import threading
import time

import numpy as np
import pytest
import torch

from contextlm.data.loader import micro_batches


class Counting:
    """Sample n is [n, n]; sample `fails_at` fails."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.fails_at = fails_at
        self.asked = 0

    def sample(self, n: int) -> np.ndarray:
        self.asked += 1
        if n == self.fails_at:
            raise OSError("disk gone")
        return np.array([n, n], dtype=np.int64)


def rank_batches(first: int, batch: int, rank: int, size: int, micro: int, iterations: int) -> list[list[int]]:
    """The sample numbers of each micro-batch of one rank."""
    loader = micro_batches(Counting(), first, batch, rank, size, micro)
    found = [part[:, 0].tolist() for part in itertools.islice(loader, iterations * micro)]
    loader.close()
    return found


@pytest.mark.parametrize(("batch", "size", "micro"), [(12, 1, 1), (1, 1, 12), (2, 3, 2), (3, 4, 1), (1, 12, 1)])
def test_global_batches_are_the_same_for_every_layout(batch: int, size: int, micro: int) -> None:
    ranks = [rank_batches(24, batch, rank, size, micro, iterations=3) for rank in range(size)]
    for iteration in range(3):
        numbers = [n for rank in ranks for part in rank[iteration * micro : (iteration + 1) * micro] for n in part]
        assert sorted(numbers) == list(range(24 + 12 * iteration, 36 + 12 * iteration))


def test_micro_batches_follow_the_formula() -> None:
    assert rank_batches(100, 2, 1, 3, 2, iterations=1) == [[102, 103], [108, 109]]


def test_batches_are_int64_tensors() -> None:
    loader = micro_batches(Counting(), 0, 4, 0, 1, 1)
    batch = next(loader)
    loader.close()
    assert batch.dtype == torch.int64 and batch.shape == (4, 2) and batch.device.type == "cpu"


def test_the_last_iteration_is_whole() -> None:
    loader = micro_batches(Counting(), 0, 2, 0, 2, 2, last_sample=23)
    assert [part[0, 0].item() for part in loader] == [0, 4, 8, 12]
    assert list(micro_batches(Counting(), 0, 2, 0, 1, 1, last_sample=1)) == []


@pytest.mark.parametrize(("size", "batch"), [(1, 1), (1, 2), (2, 1)])
def test_iterations_may_differ_in_size(size: int, batch: int) -> None:
    """6 samples from 100 on, 2 before; what begins at a sample depends on that sample only."""
    asked = []

    def at(sample: int) -> int:
        asked.append(sample)
        return (6 if sample >= 100 else 2) // (size * batch)

    ranks = []
    for rank in range(size):
        loader = micro_batches(Counting(), 96, batch, rank, size, at, last_sample=112)
        ranks.append([part[:, 0].tolist() for part in loader])
    first, second = 2 // (size * batch), 6 // (size * batch)
    iterations = [slice(0, first), slice(first, 2 * first)]
    iterations += [slice(2 * first + k * second, 2 * first + (k + 1) * second) for k in range(2)]
    numbers = [sorted(n for rank in ranks for part in rank[taken] for n in part) for taken in iterations]
    assert numbers == [list(range(*ends)) for ends in ((96, 98), (98, 100), (100, 106), (106, 112))]
    assert {len(rank) for rank in ranks} == {2 * first + 2 * second}
    assert set(asked) == {96, 98, 100, 106, 112}


def test_a_run_that_resumes_at_any_iteration_sees_the_same_batches() -> None:
    def at(sample: int) -> int:
        return 1 + sample // 10

    def batches(first: int) -> list[list[int]]:
        return [part[:, 0].tolist() for part in micro_batches(Counting(), first, 2, 0, 1, at, last_sample=60)]

    whole, start = batches(0), 0
    while start + 2 * at(start) <= 60:
        assert batches(start) == whole[start // 2 :]
        start += 2 * at(start)


def test_errors_are_raised_where_the_batch_was_due() -> None:
    loader = micro_batches(Counting(fails_at=5), 0, 2, 0, 1, 1)
    assert [next(loader)[0, 0].item(), next(loader)[0, 0].item()] == [0, 2]
    with pytest.raises(OSError, match="disk gone"):
        next(loader)


def test_it_reads_a_few_ahead_and_stops_when_closed() -> None:
    samples = Counting()
    loader = micro_batches(samples, 0, 1, 0, 1, 1)
    next(loader)
    time.sleep(0.05)
    assert 1 < samples.asked <= 8
    loader.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "micro-batches"]


@pytest.mark.parametrize("arguments", [(0, 0, 0, 1, 1), (0, 1, 1, 1, 1), (0, 1, 0, 1, 0), (-1, 1, 0, 1, 1)])
def test_bad_arguments_are_refused_at_once(arguments: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="first sample"):
        micro_batches(Counting(), *arguments)
