"""Checks of pipeline stages and model chunks: each refused value beside a neighbour that works."""

from __future__ import annotations

import re

import pytest

from tests.unit.config.dry_problems import dry_problems

PP, LAYERS = "--pipeline-model-parallel-size", "--num-layers"
FIRST, LAST = "--decoder-first-pipeline-num-layers", "--decoder-last-pipeline-num-layers"
CHUNKS, CHUNK_LAYERS = "--num-virtual-stages-per-pipeline-rank", "--num-layers-per-virtual-pipeline-stage"
BATCH = "--global-batch-size 24"


@pytest.mark.parametrize(
    ("line", "fragment"),
    [
        (f"{LAYERS} 6 {PP} 4", f"{PP} 4: does not divide {LAYERS} 6; use 2 or 3 or 6, or uneven pipeline stages"),
        (f"{LAYERS} 8 {FIRST} 8", f"{FIRST} 8: the only pipeline stage holds all layers; use {PP} 2 or more"),
        (f"{FIRST} 2 {LAST} 2", "use --pipeline-model-parallel-size 2 or more, or drop both"),
        (f"{LAYERS} 8 {PP} 3 {FIRST} 3", f"{FIRST} 3: leaves 5 of {LAYERS} 8 to 2 other pipeline stages ({PP} 3)"),
        (f"{LAYERS} 8 {PP} 3 {FIRST} 3", "equally many and at least one; use 2 or 4 or 6"),
        (f"{LAYERS} 8 {PP} 2 {LAST} 8", "leaves 0 of --num-layers 8 to 1 other pipeline stage ("),
        (f"{LAYERS} 8 {PP} 2 {LAST} 8", "must hold at least one; use 5 or 6 or 7"),
        (f"{LAYERS} 8 {PP} 4 {FIRST} 3 {LAST} 2", f"{FIRST} 3 and {LAST} 2: leave 3 of {LAYERS} 8 to 2 other"),
        (f"{LAYERS} 8 {PP} 4 {FIRST} 3 {LAST} 2", "use two numbers that add up to 2 or 4 or 6"),
        (f"{LAYERS} 8 {PP} 2 {FIRST} 3 {LAST} 4", f"add up to 7, but two pipeline stages must hold all {LAYERS} 8"),
        (f"{LAYERS} 8 {PP} 2 {FIRST} 3 {LAST} 4", "use two numbers that add up to 8"),
        (f"{LAYERS} 2 {PP} 3 {FIRST} 1", f"{PP} 3: more pipeline stages than {LAYERS} 2; use at most 2"),
        (f"{LAYERS} 8 {PP} 2 {CHUNKS} 2 {CHUNK_LAYERS} 2", "two ways to say the same; keep one"),
        (f"{CHUNKS} 2", f"{CHUNKS} 2: one pipeline stage has nothing to interleave with; use {PP} 2 or more"),
        (f"{LAYERS} 4 {CHUNK_LAYERS} 2", f"{CHUNK_LAYERS} 2: one pipeline stage has nothing to interleave with"),
        (f"{LAYERS} 8 {PP} 2 {CHUNK_LAYERS} 3", f"does not divide the 4 layers of a pipeline stage ({LAYERS} 8"),
        (f"{LAYERS} 8 {PP} 2 {CHUNK_LAYERS} 3", "use 1 or 2 or 4"),
        (f"{LAYERS} 8 {PP} 2 {CHUNK_LAYERS} 8", "does not divide the 4 layers"),
        (f"{LAYERS} 8 {PP} 2 {CHUNKS} 3", f"{CHUNKS} 3: does not divide the 4 layers of each pipeline stage"),
        (f"{LAYERS} 8 {PP} 3 {FIRST} 2 {LAST} 2 {CHUNKS} 4", "does not divide the 2 or 4 layers of each"),
        (f"{LAYERS} 8 {PP} 3 {FIRST} 2 {LAST} 2 {CHUNKS} 4", "use 1 or 2"),
        (f"{LAYERS} 12 {PP} 2 {FIRST} 4 {CHUNKS} 3", "does not divide the 4 or 8 layers"),
        (f"{LAYERS} 8 {PP} 2 {FIRST} 4 {LAST} 4 {CHUNKS} 2", f"{CHUNKS} 2 takes only one; drop the last"),
        (f"{LAYERS} 8 {PP} 2 {FIRST} 4 {CHUNK_LAYERS} 2", f"with {FIRST} pipeline stages may differ in size; use"),
    ],
)
def test_each_mistake_has_its_sentence(line, fragment):
    (problem,) = dry_problems(f"{line} {BATCH}")
    assert fragment in problem


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
