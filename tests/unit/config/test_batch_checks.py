"""Batch sizes that work; what does not is in `wrong_command_lines.txt`."""

from __future__ import annotations

import pytest

from tests.unit.config.dry_problems import dry_problems

BATCH, MICRO, RAMP = "--global-batch-size", "--micro-batch-size", "--rampup-batch-size"
INTERLEAVED = "--num-layers 8 --pipeline-model-parallel-size 2 --num-virtual-stages-per-pipeline-rank 2"


@pytest.mark.parametrize(
    ("line", "world_size"),
    [
        (f"{BATCH} 32 {MICRO} 4", 4),
        (f"{BATCH} 8 {MICRO} 4", None),
        (f"{INTERLEAVED} {BATCH} 8", 4),
        ("--num-layers 8 --pipeline-model-parallel-size 2 --num-virtual-stages-per-pipeline-rank 1", None),
        (f"{BATCH} 32 {RAMP} 16 16 100", None),
        (f"{BATCH} 32 {RAMP} 32 8 100", None),
        (f"{BATCH} 32 {MICRO} 4 {RAMP} 4 28 1", None),
        (f"{BATCH} 32 {MICRO} 2 {RAMP} 4 4 100", 2),
        (f"{INTERLEAVED} {BATCH} 8 {RAMP} 2 2 100", None),
    ],
)
def test_what_works_passes(line, world_size):
    assert dry_problems(line, world_size) == ()
