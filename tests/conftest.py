"""Fixtures that need a process group: one gloo process, and a pool of four."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def layout() -> Iterator[object]:
    """A layout of this process alone, for models that are built in the test process.

    It installs the CPU runtime where CUDA is absent, so `torch.cuda` answers for the CPU from then on.
    """
    import torch

    from contextlm.config.schema import ParallelConfig
    from contextlm.parallel import runtime
    from contextlm.parallel.layout import model_parallel
    from contextlm.parallel.seeds import seed_weights

    torch.set_num_threads(1)
    parallel = ParallelConfig()
    with runtime.start(parallel), model_parallel(parallel) as groups:
        seed_weights(1234, groups)
        yield groups


@pytest.fixture(scope="session")
def pool() -> Iterator[object]:
    """Four gloo processes that run functions of `tests/distributed` under any layout."""
    from tests.distributed.pool import Pool

    with Pool(4) as processes:
        yield processes
