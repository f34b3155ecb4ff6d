"""Recomputation that works; what does not is in `wrong_command_lines.txt`."""

from __future__ import annotations

import pytest

from tests.unit.config.dry_problems import dry_problems

FULL, SELECTIVE = "--recompute-granularity full", "--recompute-granularity selective"
METHOD, NUM, MODULES = "--recompute-method", "--recompute-num-layers", "--recompute-modules"
PIPELINE = "--num-layers 8 --pipeline-model-parallel-size 2 --global-batch-size 4"
CHUNKS = "--num-virtual-stages-per-pipeline-rank"


@pytest.mark.parametrize(
    "line",
    [
        f"{FULL} {METHOD} uniform {NUM} 1",
        f"{FULL} {METHOD} uniform {NUM} 3",
        f"{FULL} {METHOD} uniform {NUM} 9",
        f"{FULL} {METHOD} block {NUM} 4",
        f"{FULL} {METHOD} block {NUM} 4 {PIPELINE}",
        f"{FULL} {METHOD} block {NUM} 2 {PIPELINE} {CHUNKS} 2",
        f"{FULL} {METHOD} block {NUM} 6 {PIPELINE} --decoder-last-pipeline-num-layers 2",
        SELECTIVE,
        f"{SELECTIVE} {MODULES} mlp core_attn",
        f"{MODULES} core_attn",
    ],
)
def test_what_works_passes(line):
    assert dry_problems(line) == ()
