"""Checks of tensor and data parallelism: each refused value beside a neighbour that works."""

from __future__ import annotations

import pytest

from contextlm.config import parse
from tests.unit.config.dry_problems import dry_problems

TP, PP = "--tensor-model-parallel-size", "--pipeline-model-parallel-size"


@pytest.mark.parametrize(
    ("line", "world_size", "fragment"),
    [
        (f"--model gpt2-1.5b {TP} 2", None, "does not divide --num-attention-heads 25; use 1 or 5 or 25"),
        (f"--ffn-hidden-size 511 {TP} 2", None, "does not divide --ffn-hidden-size 511; use 1"),
        (f"{TP} 2 {PP} 2", 6, "6 processes are no multiple of 4; start 4 or 8"),
        (f"{TP} 4", 2, "2 processes are no multiple of 4; start 4 (torchrun"),
        (f"{TP} 2", 1, "1 process is no multiple of 2; start 2 (torchrun"),
        (f"--sequence-parallel {TP} 2 --seq-length 255", None, "--seq-length 255: --sequence-parallel gives each of"),
        (f"--sequence-parallel {TP} 2 --seq-length 255", None, f"{TP} 2 ranks an equal part of it; use 254 or 256"),
        (f"--sequence-parallel {TP} 4 --seq-length 3", None, "use 4"),
        ("--overlap-param-gather", None, "add --overlap-grad-reduce"),
        (
            "--overlap-param-gather --overlap-grad-reduce --no-use-distributed-optimizer",
            None,
            "--overlap-param-gather: gathers what the ranks of the distributed optimizer update; drop it or",
        ),
        (
            "--distrib-optim-fully-reshardable-mem-efficient --no-use-distributed-optimizer",
            None,
            "drop it or --no-use-distributed-optimizer",
        ),
    ],
)
def test_each_mistake_has_its_sentence(line, world_size, fragment):
    (problem,) = dry_problems(line, world_size)
    assert fragment in problem


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


def test_both_needs_of_a_gather_are_told_at_once():
    assert len(dry_problems("--overlap-param-gather --no-use-distributed-optimizer")) == 2


@pytest.mark.parametrize(("line", "splits"), [(f"{TP} 2", True), ("", False)])
def test_one_rank_splits_no_sequence(line, splits):
    """megatron-core refuses the flag without tensor parallelism; Megatron-LM switches it off."""
    assert parse(["--dry-run", "--sequence-parallel", *line.split()], {}).config.parallel.splits_sequence is splits
