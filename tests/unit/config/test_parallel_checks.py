"""Tensor and data parallelism that work; what does not is in `wrong_command_lines.txt`."""

from __future__ import annotations

import pytest

from contextlm.config import parse
from tests.unit.config.dry_problems import dry_problems

TP, PP = "--tensor-model-parallel-size", "--pipeline-model-parallel-size"


@pytest.mark.parametrize(
    ("line", "world_size"),
    [
        (f"--model gpt2-1.5b {TP} 5", None),
        (f"{TP} 2 {PP} 2", 8),
        (f"--sequence-parallel {TP} 2 --seq-length 254", None),
        (f"{TP} 2 --seq-length 255", None),
        ("--sequence-parallel --seq-length 255", None),
        ("--overlap-param-gather --overlap-grad-reduce", None),
        ("--overlap-grad-reduce --no-use-distributed-optimizer", None),
        ("--no-use-distributed-optimizer --no-accumulate-allreduce-grads-in-fp32 --ddp-bucket-size 1000", None),
    ],
)
def test_what_works_passes(line, world_size):
    assert dry_problems(line, world_size) == ()


@pytest.mark.parametrize(("line", "splits"), [(f"{TP} 2", True), ("", False)])
def test_one_rank_splits_no_sequence(line, splits):
    """megatron-core refuses the flag without tensor parallelism; Megatron-LM switches it off."""
    assert parse(["--dry-run", "--sequence-parallel", *line.split()], {}).config.parallel.splits_sequence is splits
