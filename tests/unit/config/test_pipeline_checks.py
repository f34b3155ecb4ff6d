"""Pipeline stages and model chunks that work, and remedies that do; what does not is in `wrong_command_lines.txt`."""

from __future__ import annotations

import re

import pytest

from tests.unit.config.dry_problems import dry_problems

PP, LAYERS = "--pipeline-model-parallel-size", "--num-layers"
FIRST, LAST = "--decoder-first-pipeline-num-layers", "--decoder-last-pipeline-num-layers"
CHUNKS, CHUNK_LAYERS = "--num-virtual-stages-per-pipeline-rank", "--num-layers-per-virtual-pipeline-stage"
BATCH = "--global-batch-size 24"


@pytest.mark.parametrize(
    "line",
    [
        f"{LAYERS} 6 {PP} 3",
        f"{LAYERS} 8 {PP} 3 {FIRST} 2",
        f"{LAYERS} 8 {PP} 2 {LAST} 7",
        f"{LAYERS} 8 {PP} 2 {FIRST} 3 {LAST} 5",
        f"{LAYERS} 8 {PP} 4 {FIRST} 3 {LAST} 1",
        f"{LAYERS} 3 {PP} 3 {FIRST} 1 {LAST} 1",
        f"{LAYERS} 8 {PP} 2 {CHUNK_LAYERS} 2",
        f"{LAYERS} 8 {PP} 2 {CHUNK_LAYERS} 4",
        f"{LAYERS} 4 {CHUNK_LAYERS} 4",
        f"{LAYERS} 8 {PP} 2 {CHUNKS} 4",
        f"{CHUNKS} 1",
        f"{LAYERS} 8 {PP} 3 {FIRST} 2 {LAST} 2 {CHUNKS} 2",
        f"{LAYERS} 8 {PP} 2 {FIRST} 6 {CHUNKS} 2",
        f"{LAYERS} 8 {PP} 2 {FIRST} 4 {LAST} 4 {CHUNKS} 1",
    ],
)
def test_what_works_passes(line):
    assert dry_problems(f"{line} {BATCH}") == ()


@pytest.mark.parametrize(
    ("line", "flag"),
    [
        (f"{LAYERS} 9 {PP} 4 {FIRST} 7", FIRST),
        (f"{LAYERS} 9 {PP} 4 {LAST} 9", LAST),
        (f"{LAYERS} 12 {PP} 2 {CHUNKS} 5", CHUNKS),
        (f"{LAYERS} 12 {PP} 2 {CHUNK_LAYERS} 5", CHUNK_LAYERS),
    ],
)
def test_the_values_in_the_remedy_work(line, flag):
    (problem,) = dry_problems(f"{line} {BATCH}")
    near = re.search(r"use (\d+(?: or \d+)*)$", problem)
    assert near is not None
    for value in near[1].split(" or "):
        assert dry_problems(re.sub(rf"{flag} \d+", f"{flag} {value}", f"{line} {BATCH}")) == ()
