"""Megatron-LM's options that ContextLM does not have."""

from __future__ import annotations

import re

import pytest

from contextlm.config.fields import all_fields
from contextlm.config.flags import PROGRAM_FLAGS, read_flags
from contextlm.config.refused import refused_flag


def problems(line: str) -> list[str]:
    return read_flags(line.split(), all_fields()).problems


@pytest.mark.parametrize(
    "line",
    [
        "--context-parallel-size 2",
        "--pipeline-model-parallel-layout E|t*3|t*3|L",
        "--distribute-saved-activations",
        "--overlap-param-gather-with-optimizer-step",
        "--fp8-format hybrid",
        "--async-save",
        "--wandb-entity x",
        "--vocab-file vocab.json",
        "--data-args-path x.txt",
        "--decrease-batch-size-if-needed",
        "--record-memory-history",
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
        "--no-overlap-p2p-communication",
        "--recompute-activations",
        "--grad-reduce-in-bf16",
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
        "--ckpt-format torch_dist",
        "--dataloader-type=single",
    ],
)
def test_a_value_that_asks_for_nothing_passes(line):
    reading = read_flags(line.split(), all_fields())
    assert reading.problems == [] and reading.fields == {}


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ("--recompute-activations", "use --recompute-granularity selective"),
        ("--distribute-saved-activations", "use --sequence-parallel"),
        ("--context-parallel-size 2", "--tensor-model-parallel-size and --sequence-parallel"),
        ("--pipeline-model-parallel-layout Et|tL", "--decoder-first-pipeline-num-layers"),
        ("--account-for-loss-in-pipeline-split", "--decoder-last-pipeline-num-layers"),
        ("--no-overlap-p2p-communication", "gradients are silently wrong; drop it"),
        ("--ddp-num-buckets 4", "use --ddp-bucket-size"),
        ("--grad-reduce-in-bf16", "use --no-accumulate-allreduce-grads-in-fp32"),
    ],
)
def test_remedies_name_the_options_that_are_there(line, remedy):
    (problem,) = problems(line)
    assert remedy in problem
    ours = {field.flag for field in all_fields().values()}
    ours |= {f"--no-{field.flag[2:]}" for field in all_fields().values() if field.kind is bool}
    assert set(re.findall(r"--[a-z0-9-]+", problem.partition(": ")[2])) <= ours


def test_no_flag_of_ours_is_refused():
    ours = [field.flag[2:] for field in all_fields().values()] + list(PROGRAM_FLAGS)
    assert [name for name in ours if refused_flag(name, ["1"])[0]] == []
