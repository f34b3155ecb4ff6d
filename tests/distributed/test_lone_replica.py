"""A model without copies exchanges nothing with them, and trains the same (contextlm/megatron/lone_replica.py)."""

from __future__ import annotations

import contextlib
from typing import Any
from unittest import mock

import pytest

from tests.distributed.communication_cases import Messages
from tests.distributed.pool import Pool
from tests.distributed.runs import small_run

OPTIMIZERS = {"distributed": {}, "plain": {"use_distributed_optimizer": False}}


def two_steps(values: dict[str, Any], mended: bool = True) -> tuple[list[float], int]:
    """The losses and gradient norms of two iterations, and how many messages hold all weights or gradients."""
    from contextlm.training.step import train_step

    with small_run("gpt2", micro_batch_size=2, global_batch_size=4, **values) as run, contextlib.ExitStack() as stack:
        buckets = type(run.model[0].bucket_groups[0])
        for name in () if mended else ("start_grad_sync", "start_param_sync"):
            stack.enter_context(mock.patch.object(buckets, name, getattr(buckets, name).__wrapped__))
        messages = stack.enter_context(Messages())
        batches = run.micro_batches(run.datasets.train, 0, run.num_microbatches)
        results = [train_step(run, batches) for _ in range(2)]
        batches.close()
        size = run.model[0].buffers[0].grad_data.nbytes // run.layout.data_parallel_size
        large = sum(count for message, count in messages.counts.items() if message.num_bytes >= size)
        return [float(x) for result in results for x in (result.loss, result.grad_norm)], large


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_nothing_is_exchanged_and_the_numbers_are_the_same(pool: Pool, optimizer: str) -> None:
    ((numbers, large),) = pool.run(two_steps, 1, values=OPTIMIZERS[optimizer])
    ((reference, unmended),) = pool.run(two_steps, 1, values=OPTIMIZERS[optimizer], mended=False)
    assert large == 0 and unmended >= 2
    assert numbers == reference


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_copies_still_exchange(pool: Pool, optimizer: str) -> None:
    for _, large in pool.run(two_steps, 2, values=OPTIMIZERS[optimizer]):
        assert large >= 2


def test_overlapped_it_runs_too(pool: Pool) -> None:
    values = {"overlap_grad_reduce": True, "overlap_param_gather": True}
    ((numbers, _),) = pool.run(two_steps, 1, values=values)
    ((reference, _),) = pool.run(two_steps, 1, values={})
    assert numbers == reference
