"""Gradients replace those of the iteration before, are divided once, and need no buffer where nothing is added up."""

from __future__ import annotations

import numpy as np
import pytest

from contextlm.config.unbuffered import adds_nothing_up
from tests.distributed import buffer_cases
from tests.distributed.buffer_cases import ONE
from tests.distributed.pool import Pool
from tests.small_configs import small_config


def equal(one: buffer_cases.Gradients, other: buffer_cases.Gradients) -> bool:
    assert one.keys() == other.keys()
    return all(np.array_equal(one[name], other[name]) for name in one)


def test_an_iteration_forgets_the_one_before(pool: Pool) -> None:
    ((first, second),) = pool.run(buffer_cases.after_another_iteration, 1)
    assert equal(first, second)
    assert all(np.abs(value).max() > 0 for name, value in first.items() if "context_head" not in name)


def test_zeros_are_written_only_where_there_is_no_gradient(pool: Pool) -> None:
    ((is_as_it_was, gradients),) = pool.run(buffer_cases.with_none, 1)
    assert is_as_it_was and not any(value.any() for value in gradients.values())


def test_gradients_that_come_together_are_added_up_together(pool: Pool) -> None:
    ((one_by_one, at_once, calls),) = pool.run(buffer_cases.together, 1, fails=False)
    assert equal(one_by_one, at_once)
    assert calls == 2 * [(False, len(at_once)), (True, len(at_once))]


def test_a_backward_pass_that_fails_leaves_nothing_waiting(pool: Pool) -> None:
    ((one_by_one, at_once, calls),) = pool.run(buffer_cases.together, 1, fails=True)
    assert equal(one_by_one, at_once)
    assert calls == [(False, len(at_once)), (True, len(at_once))]


def test_sums_are_kept_where_they_are_wanted(pool: Pool) -> None:
    ((means, factor, num_tokens),) = pool.run(buffer_cases.divided, 1, keeps_sums=False)
    ((sums, *_),) = pool.run(buffer_cases.divided, 1, keeps_sums=True)
    assert factor == pytest.approx(1 / num_tokens) and not equal(sums, means)
    assert equal({name: value * np.float32(factor) for name, value in sums.items()}, means)


@pytest.mark.parametrize(
    "more, num_ranks",
    [
        ({"bf16": False}, 1),
        ({"global_batch_size": 4}, 1),
        ({"global_batch_size": 4}, 2),
        ({"global_batch_size": 4, "rampup_batch_size": (2, 2, 8)}, 1),
        ({"overlap_grad_reduce": True, "overlap_param_gather": True}, 1),
    ],
)
def test_what_needs_a_buffer(more: dict, num_ranks: int) -> None:
    assert adds_nothing_up(small_config(**ONE), 1)
    assert not adds_nothing_up(small_config(**(ONE | more)), num_ranks)


@pytest.mark.parametrize("distributed", [True, False])
def test_without_a_buffer_they_are_the_same(pool: Pool, distributed: bool) -> None:
    ((expected, found, num_bytes, finds, by_itself),) = pool.run(buffer_cases.left, 1, distributed=distributed)
    assert equal(expected, found) and num_bytes == 0 and finds
    assert not by_itself  # on a CPU: torch's own AdamW could not read them
    assert all(np.abs(value).max() > 0 for name, value in found.items() if "context_head" not in name)
