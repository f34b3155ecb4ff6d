"""The layout matrix over NCCL: its rows that the GPUs of this machine have ranks for, up to eight.

On one GPU and on two there are rows with every value that so few ranks allow.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.distributed.matrix import Row
from tests.distributed.matrix_rows import ROWS
from tests.distributed.matrix_runs import FAULTS, Runs, check_fault, check_row
from tests.distributed.pool import Pool
from tests.distributed.resume_cases import train
from tests.distributed.test_exact_resume import CASES, RAMP

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def runs(gpu_pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(gpu_pool, tmp_path_factory.mktemp("matrix"))


@pytest.mark.parametrize("row", [pytest.param(row, id=f"{number}: {row.layout}") for number, row in enumerate(ROWS)])
def test_a_row_computes_what_its_reference_does(runs: Runs, row: Row) -> None:
    if runs.pool.size < row.world_size:
        pytest.skip(f"needs {row.world_size} GPUs")
    check_row(runs, row)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_noticed(runs: Runs, fault: str) -> None:
    needed = FAULTS[fault][0].world_size
    if runs.pool.size < needed:
        pytest.skip(f"needs {needed} GPUs")
    check_fault(runs, fault)


@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize("case", CASES)
def test_a_stopped_run_continues(gpu_pool: Pool, tmp_path: Path, case: str, copies: int) -> None:
    if gpu_pool.size < copies:
        pytest.skip(f"needs {copies} GPUs")
    values = RAMP | {"lr": 1e-3, "lr_warmup_iters": 2, "train_iters": 8} | CASES[case]
    folder = str(tmp_path / "run")
    whole = gpu_pool.run(train, copies, folder=None, steps=8, values=values)[-1]
    first = gpu_pool.run(train, copies, folder=folder, steps=3, values=values)[-1]
    then = gpu_pool.run(train, copies, folder=folder, steps=5, values=values)[-1]
    assert np.allclose(first + then, whole, rtol=1e-4), (first + then, whole)
