"""A step's time by the stated assumptions, each checked by hand where it alone matters."""

from __future__ import annotations

import pytest

from contextlm.analysis.flops import training_flops_per_token
from contextlm.analysis.memory import stage_parameters
from contextlm.analysis.run_cost import run_cost, tokens_of_run
from contextlm.analysis.step_time import LAUNCH, Machine, StepTime, step_time
from contextlm.config import Config, parse

VOCAB_SIZE = 50257
MACHINE = Machine(peak_tflops=989, mfu=0.4)


def configuration(line: str) -> Config:
    return parse(["--dry-run", "--model", "contextlm-gpt2-1.5b", "--bf16", *line.split()], {}).config


def of(line: str, world_size: int) -> StepTime:
    return step_time(configuration(line), VOCAB_SIZE, world_size, MACHINE)


def test_one_gpu_works_at_its_mfu() -> None:
    line = "--micro-batch-size 8 --global-batch-size 32"
    per_token = training_flops_per_token(configuration(line), VOCAB_SIZE)
    time = of(line, 1)
    assert time.work == pytest.approx(32 * 1024 * per_token / 989e12 / 0.4)
    assert time.total == time.work
    assert of(f"{line} --recompute-granularity selective", 1).again > 0


def test_small_micro_batches_wait_for_the_host() -> None:
    line = "--seq-length 64 --micro-batch-size 1 --global-batch-size 4 --tensor-model-parallel-size 5"
    time = of(line, 5)
    assert time.launches > 0 and time.work + time.launches == pytest.approx(4 * 50 * LAUNCH, rel=0.02)


def test_data_parallel_ranks_exchange_gradients_and_weights_once_a_step() -> None:
    count = stage_parameters(configuration(""), VOCAB_SIZE, 0)
    line = "--micro-batch-size 8 --global-batch-size"
    for world_size, bandwidth in ((8, MACHINE.nvlink), (64, MACHINE.network)):
        expected = (4 + 2) * count * (world_size - 1) / world_size / bandwidth
        assert of(f"{line} {8 * world_size}", world_size).data == pytest.approx(expected)
        assert of(f"{line} {32 * world_size}", world_size).data == pytest.approx(expected)
    plain = of(f"{line} 64 --no-use-distributed-optimizer", 8).data
    assert plain == pytest.approx(2 * 4 * count * 7 / 8 / MACHINE.nvlink)
    overlap = "--overlap-grad-reduce --overlap-param-gather"
    assert of(f"{line} 64 {overlap}", 8).data == 0


def test_tensor_parallel_ranks_exchange_states_in_every_layer() -> None:
    line = "--tensor-model-parallel-size 5 --micro-batch-size 4 --global-batch-size 8"
    states = 4 * 1024 * 1600 * 2
    expected = 2 * (48 + 2 / 4) * 4 * (2 * 4 / 5 * states) / MACHINE.nvlink
    assert of(line, 5).tensor == pytest.approx(expected)
    full = "--recompute-granularity full --recompute-method uniform --recompute-num-layers 1"
    assert of(f"{line} {full}", 5).tensor == pytest.approx(expected * 6 / 4)


def test_a_pipeline_waits_and_sends() -> None:
    line = "--pipeline-model-parallel-size 4 --micro-batch-size 4 --global-batch-size"
    few, many = of(f"{line} 16", 4), of(f"{line} 256", 4)
    assert few.waiting / few.total > 0.4 > 0.2 > many.waiting / many.total
    assert many.pipeline == pytest.approx(64 * 2 * 4 * 1024 * 1600 * 2 / MACHINE.nvlink)
    interleaved = of(f"{line} 16 --num-virtual-stages-per-pipeline-rank 2", 4)
    assert interleaved.waiting < few.waiting and interleaved.pipeline == 2 * few.pipeline


def test_cost_of_a_run() -> None:
    config = configuration("--micro-batch-size 8 --global-batch-size 512 --train-iters 1000")
    assert tokens_of_run(config, 64) == 1000 * 512 * 1024
    assert tokens_of_run(configuration(""), 64) is None
    cost = run_cost(config, VOCAB_SIZE, 64, MACHINE, 300e9, price_per_gpu_hour=2.5)
    # 300e9 tokens x 10.37 GFLOP / (64 x 989e12 x 0.4)
    assert cost.at_mfu.hours == pytest.approx(34.1, abs=0.1)
    assert cost.at_mfu.gpu_hours == pytest.approx(64 * cost.at_mfu.hours)
    assert cost.at_mfu.price == pytest.approx(2.5 * cost.at_mfu.gpu_hours)
    assert cost.at_mfu.days == pytest.approx(cost.at_mfu.hours / 24)
    assert cost.in_layout.hours / cost.at_mfu.hours == pytest.approx(0.4 / cost.mfu, rel=1e-3)
    assert cost.mfu < 0.4
    assert run_cost(config, VOCAB_SIZE, 64, MACHINE, 300e9).at_mfu.price is None
