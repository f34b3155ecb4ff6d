"""The batch size as a function of the samples consumed: Megatron's, and a sum that equals the loop's."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest

from contextlm.config.batch_ramp import batch_size_at, num_iterations, samples_after
from contextlm.config.fields import build
from contextlm.config.schema import Config


def ramp(start: int, increment: int, samples: int, full: int) -> Config:
    words = (str(start), str(increment), str(samples))
    return build({"rampup_batch_size": words, "global_batch_size": full}, None)


def random_ramps(count: int) -> list[tuple[int, int, int, int]]:
    draw = random.Random(0)
    found = []
    for _ in range(count):
        start, increment = draw.randint(1, 20), draw.randint(1, 20)
        found.append((start, increment, draw.randint(1, 2000), start + draw.randint(1, 12) * increment))
    return found


RAMPS = [(4, 2, 20, 8), (1, 1, 7, 4), (16, 16, 1, 64), (8, 4, 1000, 12), *random_ramps(50)]


def consumed_by_a_loop(config: Config, iterations: int) -> int:
    consumed = 0
    for _ in range(iterations):
        consumed += batch_size_at(config, 1, consumed)
    return consumed


@pytest.mark.parametrize("numbers", RAMPS)
def test_every_size_has_an_equal_share_of_the_samples(numbers):
    """In fractions; only at the very border between two sizes may a float fall on the other side of it."""
    (start, increment, samples, full), config = numbers, ramp(*numbers)
    share = Fraction(samples * increment, full - start)
    for consumed in range(samples + 3):
        exact = min(full, start + int(consumed / share) * increment)
        found = batch_size_at(config, 1, consumed)
        assert found == exact or (consumed % share == 0 and found == exact - increment)


@pytest.mark.parametrize("numbers", RAMPS)
def test_megatron_says_the_same(numbers):
    from megatron.core.num_microbatches_calculator import RampupBatchsizeNumMicroBatchesCalculator

    (start, increment, samples, full), config = numbers, ramp(*numbers)
    theirs = RampupBatchsizeNumMicroBatchesCalculator(full, 1, 1, False, 0, start, increment, samples)
    for consumed in range(samples + 3):
        theirs.update(consumed, consistency_check=True)
        assert batch_size_at(config, 1, consumed) == theirs.current_global_batch_size


def test_it_begins_with_start_and_ends_with_the_full_size():
    config = ramp(4, 2, 20, 8)
    assert [batch_size_at(config, 1, consumed) for consumed in (0, 9, 10, 19, 20, 21, 10**9)] == [4, 4, 6, 6, 8, 8, 8]
    assert batch_size_at(ramp(8, 2, 20, 8), 1, 0) == 8


def test_without_a_ramp_it_is_constant():
    config = build({"micro_batch_size": 3}, None)
    assert {batch_size_at(config, 2, consumed) for consumed in (0, 1, 100)} == {6}


@pytest.mark.parametrize("numbers", RAMPS)
def test_samples_after_some_iterations(numbers):
    config = ramp(*numbers)
    for iterations in (0, 1, 2, 7, 30, 500):
        assert samples_after(config, 1, iterations) == consumed_by_a_loop(config, iterations)


def test_samples_after_very_many_iterations():
    assert samples_after(build({"global_batch_size": 512}, None), 1, 10**12) == 512 * 10**12
    assert samples_after(ramp(16, 16, 10**9, 1024), 1, 10**12) > 1000 * 10**12


@pytest.mark.parametrize("numbers", RAMPS)
def test_iterations_that_some_samples_are_enough_for(numbers):
    start, increment, samples, full = numbers
    for given in (start, start + 1, samples, samples + 1, 3 * samples + 17, 10**9):
        words = ramp(*numbers).training.rampup_batch_size
        values = {"train_samples": max(given, start), "global_batch_size": full, "rampup_batch_size": words}
        config = build(values, None)
        found = num_iterations(config, 1)
        assert samples_after(config, 1, found) <= max(given, start) < samples_after(config, 1, found + 1)


def megatron_iterations(config: Config) -> int:
    """How Megatron-LM counts: whole batches, one after the other."""
    from megatron.core.num_microbatches_calculator import RampupBatchsizeNumMicroBatchesCalculator

    start, increment, samples = map(int, config.training.rampup_batch_size)
    full, given = config.training.global_batch_size, config.training.train_samples
    theirs = RampupBatchsizeNumMicroBatchesCalculator(full, 1, 1, False, 0, start, increment, samples)
    iterations = consumed = 0
    while consumed <= samples and consumed <= given:
        theirs.update(consumed, consistency_check=False)
        consumed, iterations = consumed + theirs.current_global_batch_size, iterations + 1
    return iterations + max(0, given - consumed) // full


@pytest.mark.parametrize("numbers", RAMPS[:20])
def test_iterations_are_megatrons_where_the_run_outlasts_the_ramp(numbers):
    samples, full = numbers[2:]
    for given in (2 * samples + full, 3 * samples + 5 * full + 1):
        words = ramp(*numbers).training.rampup_batch_size
        config = build({"rampup_batch_size": words, "global_batch_size": full, "train_samples": given}, None)
        assert num_iterations(config, 1) == megatron_iterations(config)
