"""Between log lines the host never waits for the device; in fp16 once an iteration, for the overflow.

Counted on the CPU, where nothing waits: what would make the host wait for a GPU. tests/gpu asks CUDA itself.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.distributed.host_sync_cases import host_syncs
from tests.distributed.pool import Pool

PLAIN = {"use_distributed_optimizer": False}
FP16 = {"fp16": True, "initial_loss_scale": 2.0**10, "loss_scale_window": 3}
ENDS = {"reset_position_ids": True, "reset_attention_mask": True, "eod_mask_loss": True}
TWO_BATCHES = {"global_batch_size": 4}
# Iterations done when it happens: the steps of 0 and 6, and the log lines of 6 and 12, are not between log lines.
BETWEEN = (1, 2, 3, 4, 5, 7, 8, 9, 10, 11)


@pytest.mark.parametrize("optimizer", [{}, PLAIN], ids=["distributed", "plain"])
@pytest.mark.parametrize(
    ("precision", "expected"), [({}, 0), ({"bf16": True}, 0), (FP16, 1)], ids=["fp32", "bf16", "fp16"]
)
def test_the_host_runs_ahead_between_log_lines(pool: Pool, optimizer: dict, precision: dict, expected: int) -> None:
    (found,) = pool.run(host_syncs, 1, values=optimizer | precision | TWO_BATCHES)
    assert {done: found[done] for done in BETWEEN} == dict.fromkeys(BETWEEN, expected)
    assert found[6] > expected and found[12] > 0  # a log line does wait


@pytest.mark.parametrize(
    "layout",
    [
        pytest.param({"tensor_model_parallel_size": 2, "sequence_parallel": True}, id="TP2"),
        pytest.param({"overlap_grad_reduce": True, "overlap_param_gather": True}, id="DP2"),
        pytest.param({"pipeline_model_parallel_size": 2, "skip_spikes": True}, id="PP2, spikes"),
        pytest.param({"pipeline_model_parallel_size": 2} | ENDS, id="PP2, documents"),
    ],
)
def test_nor_in_a_layout(pool: Pool, layout: dict) -> None:
    for found in pool.run(host_syncs, 2, values=layout):
        assert {done: found[done] for done in BETWEEN} == dict.fromkeys(BETWEEN, 0)


@pytest.mark.parametrize("optimizer", [{"overlap_grad_reduce": True, "overlap_param_gather": True}, PLAIN], ids=str)
def test_nor_while_a_checkpoint_is_written(pool: Pool, tmp_path: Path, optimizer: dict) -> None:
    saving = {"save": str(tmp_path), "save_interval": 6, "async_save": True}
    for found in pool.run(host_syncs, 2, values=optimizer | saving):
        assert {done: found[done] for done in BETWEEN} == dict.fromkeys(BETWEEN, 0)
    assert len(list(tmp_path.glob("iter_*/manifest.json"))) == 2


@pytest.mark.parametrize("planted", ["item", "tolist", "cpu", "__bool__", "__float__", "nonzero"])
def test_a_planted_wait_is_counted(pool: Pool, planted: str) -> None:
    (found,) = pool.run(host_syncs, 1, values={}, planted=planted)
    assert {done: found[done] for done in BETWEEN} == dict.fromkeys(BETWEEN, 1)
