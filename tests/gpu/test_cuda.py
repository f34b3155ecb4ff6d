"""On a GPU in bf16: the same numbers, no leak, no S x S matrix, the same program."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.cli.programs import losses, train
from tests.conftest import GPUS
from tests.distributed.causality_cases import leaks
from tests.distributed.pool import Pool
from tests.distributed.skip_cases import train as train_disturbed
from tests.distributed.test_skipped_updates import NAN_LOSS, NAN_NORM, UPDATED
from tests.gpu import cases
from tests.small_configs import BACKBONES, FUSIONS

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("backbone", BACKBONES)
def test_computes_what_the_cpu_does(gpu_pool: Pool, pool: Pool, backbone: str) -> None:
    ((_, expected),) = pool.run(cases.logits, 1, backbone=backbone, values={})
    ((device, found),) = gpu_pool.run(cases.logits, 1, backbone=backbone, values={})
    assert device == "cuda"
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
    ((_, rounded),) = gpu_pool.run(cases.logits, 1, backbone=backbone, values={"bf16": True})
    error = np.linalg.norm(rounded - expected) / np.linalg.norm(expected)
    assert 1e-5 < error < 0.05, error


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_no_token_sees_a_later_one_in_bf16(gpu_pool: Pool, backbone: str, fusion: str) -> None:
    values = {"bf16": True, "context_fusion": fusion, "seq_length": 33}
    assert gpu_pool.run(leaks, 1, backbone=backbone, values=values) == [[]]
    assert gpu_pool.run(leaks, 1, backbone=backbone, values=values, off_by_one=True) != [[]]


def test_no_matrix_over_pairs_of_positions(gpu_pool: Pool) -> None:
    shape = {"bf16": True, "num_layers": 2, "num_attention_heads": 2, "hidden_size": 128, "micro_batch_size": 1}
    peaks = {
        length: gpu_pool.run(cases.peak_bytes, 1, values=shape | {"seq_length": length})[0] for length in (4096, 16384)
    }
    # One S x S score matrix of 2 heads in bf16 would take 1 GiB at the longer length.
    assert peaks[16384] < 5 * peaks[4096] and peaks[16384] < 2**30, peaks


@pytest.mark.parametrize("optimizer", [{}, {"use_distributed_optimizer": False}], ids=["distributed", "plain"])
def test_the_host_waits_for_nothing_between_log_lines(gpu_pool: Pool, optimizer: dict) -> None:
    """Asked of CUDA itself; in fp16 it waits once an iteration, for the overflow."""
    batches = {"global_batch_size": 4} | optimizer
    assert gpu_pool.run(cases.waits, 1, values=batches) == [[]]
    assert gpu_pool.run(cases.waits, 1, values=batches | {"bf16": True}) == [[]]
    (found,) = gpu_pool.run(cases.waits, 1, values=batches | {"fp16": True, "initial_loss_scale": 1024.0})
    assert len(found) == 10
    (planted,) = gpu_pool.run(cases.waits, 1, values=batches, planted=True)
    assert len(planted) == 10


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("optimizer", [{}, {"use_distributed_optimizer": False}], ids=["distributed", "plain"])
def test_a_nan_is_skipped_without_a_wait(gpu_pool: Pool, optimizer: dict, precision: str) -> None:
    values = optimizer | {"bf16": precision == "bf16"}
    assert gpu_pool.run(cases.waits, 1, values=values | {"skip_spikes": True, "global_batch_size": 4}) == [[]]
    for what, reason in (("loss", NAN_LOSS), ("gradient", NAN_NORM)):
        (found,) = gpu_pool.run(train_disturbed, 1, values=values, what=what)
        assert found.codes == [UPDATED, reason, UPDATED]
        assert found.kept == [False, True, False] and found.is_finite
    unchecked = values | {"check_for_nan_in_loss_and_grad": False}
    assert not gpu_pool.run(train_disturbed, 1, values=unchecked, what="loss")[0].is_finite


@pytest.mark.parametrize("interleaved", [False, True], ids=["plain", "interleaved"])
def test_nor_in_a_pipeline(gpu_pool: Pool, num_gpus: int, interleaved: bool) -> None:
    if num_gpus < 2:
        pytest.skip("two GPUs are needed")
    values = {"pipeline_model_parallel_size": 2, "global_batch_size": 4, "bf16": True}
    if interleaved:
        values["num_virtual_stages_per_pipeline_rank"] = 2
    assert gpu_pool.run(cases.waits, 2, values=values) == [[], []]


def test_the_program_trains_and_resumes_in_bf16(num_gpus: int, data: Path, tmp_path: Path) -> None:
    if num_gpus == 0:
        pytest.skip("no CUDA device")
    visible = {"CUDA_VISIBLE_DEVICES": "0" if GPUS == "all" else GPUS.split(",")[0]}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder, more in ((whole, ()), (parts, ("--exit-interval", "10")), (parts, ("--exit-interval", "10"))):
        done = train(data, folder, "--bf16", "--train-iters", "20", *more, **visible)
        assert done.returncode == 0, done.stderr
    assert losses(whole)[-1] < losses(whole)[0] - 1.0
    assert np.allclose(losses(parts), losses(whole), rtol=1e-3)
