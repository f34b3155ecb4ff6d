"""The pool lasts a whole session: a case must leave nothing behind in its processes."""

from __future__ import annotations

import os

import pytest

from tests.distributed.pool import Pool


def one_step(**values: int) -> None:
    """One iteration of a small run."""
    from contextlm.training.step import train_step
    from tests.distributed.runs import small_run

    with small_run("gpt2", micro_batch_size=2, global_batch_size=4, **values) as run:
        batches = run.micro_batches(run.datasets.train, 0, run.num_microbatches)
        train_step(run, batches)
        if batches is not None:
            batches.close()


def open_things() -> tuple[int, int]:
    """Threads and files of this process."""
    return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="counts threads in Linux's /proc")
@pytest.mark.full
def test_a_case_leaves_no_threads_behind(pool: Pool) -> None:
    """Process groups that outlive their case keep threads that never sleep: after some dozens of cases all is slow."""
    layout = {"tensor_model_parallel_size": 2, "pipeline_model_parallel_size": 2}
    pool.run(one_step, 4, **layout)
    before = pool.run(open_things, 4)
    for _ in range(2):
        pool.run(one_step, 4, **layout)
    after = pool.run(open_things, 4)
    assert all(now <= then for a, b in zip(after, before, strict=True) for now, then in zip(a, b, strict=True)), after
