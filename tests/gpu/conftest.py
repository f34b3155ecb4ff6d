"""Processes that see the GPUs; every test here skips where there is none."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.conftest import GPUS
from tests.distributed.pool import Pool

COUNT = "import os; {hidden}; import torch; print(torch.cuda.device_count())"


@pytest.fixture(scope="session")
def num_gpus() -> int:
    """GPUs of this machine, counted in a process from which they are not hidden."""
    hidden = (
        "os.environ.pop('CUDA_VISIBLE_DEVICES')" if GPUS == "all" else f"os.environ['CUDA_VISIBLE_DEVICES']={GPUS!r}"
    )
    counted = subprocess.run([sys.executable, "-c", COUNT.format(hidden=hidden)], capture_output=True, text=True)
    return int(counted.stdout.strip() or 0)


@pytest.fixture(scope="session")
def gpu_pool(num_gpus: int) -> Iterator[Pool]:
    """One NCCL process for each of at most eight GPUs."""
    if num_gpus == 0:
        pytest.skip("no CUDA device")
    visible = ",".join(map(str, range(num_gpus))) if GPUS == "all" else GPUS
    with Pool(min(num_gpus, 8), CUDA_VISIBLE_DEVICES=visible, NVIDIA_TF32_OVERRIDE="0") as pool:
        yield pool
