"""Megatron-LM's options that ContextLM does not have."""

from __future__ import annotations

import pytest

from contextlm.config.fields import all_fields
from contextlm.config.flags import PROGRAM_FLAGS, read_flags
from contextlm.config.refused import refused_flag


def problems(line: str) -> list[str]:
    return read_flags(line.split(), all_fields()).problems


@pytest.mark.parametrize(
    "line",
    [
        "--sequence-parallel",
        "--context-parallel-size 2",
        "--fp8-format hybrid",
        "--fp16",
        "--recompute-granularity full",
        "--num-layers-per-virtual-pipeline-stage 2",
        "--overlap-grad-reduce",
        "--train-samples 100",
        "--async-save",
        "--exit-duration-in-mins 5",
        "--wandb-project x",
        "--vocab-file vocab.json",
        "--data-args-path x.txt",
        "--decoder-last-pipeline-num-layers 3",
        "--profile",
        "--rampup-batch-size 16 16 1000",
    ],
)
def test_what_will_come_is_not_supported_yet(line):
    (problem,) = problems(line)
    assert problem.startswith(f"{line}: not supported yet")


@pytest.mark.parametrize(
    "line",
    [
        "--num-experts 8",
        "--moe-router-topk 2",
        "--swiglu",
        "--normalization RMSNorm",
        "--group-query-attention",
        "--multi-latent-attention",
        "--use-torch-fsdp2",
        "--dataloader-type cyclic",
        "--use-mcore-models",
        "--rl-x",
        "--retro-workdir x",
        "--bert-load x",
        "--vision-pretraining",
        "--expert-model-parallel-size 2",
        "--optimizer sgd",
    ],
)
def test_what_is_out_of_scope_says_why_and_what_to_do(line):
    (problem,) = problems(line)
    assert problem.startswith(f"{line}: not supported in ContextLM because ")
    assert "; " in problem, "no remedy"


@pytest.mark.parametrize(
    "line",
    [
        "--context-parallel-size 1",
        "--normalization LayerNorm",
        "--expert-model-parallel-size 1",
        "--optimizer adam",
        "--num-virtual-stages-per-pipeline-rank 1",
        "--ckpt-format torch_dist",
        "--dataloader-type=single",
    ],
)
def test_a_value_that_asks_for_nothing_passes(line):
    reading = read_flags(line.split(), all_fields())
    assert reading.problems == [] and reading.fields == {}


def test_no_flag_of_ours_is_refused():
    ours = [field.flag[2:] for field in all_fields().values()] + list(PROGRAM_FLAGS)
    assert [name for name in ours if refused_flag(name, ["1"])[0]] == []
