"""Checks of the batch sizes: each refused value beside a neighbour that works."""

from __future__ import annotations

import pytest

from tests.unit.config.dry_problems import dry_problems

BATCH, MICRO, RAMP = "--global-batch-size", "--micro-batch-size", "--rampup-batch-size"
INTERLEAVED = "--num-layers 8 --pipeline-model-parallel-size 2 --num-virtual-stages-per-pipeline-rank 2"
FORM = "is not START INCREMENT SAMPLES, three whole numbers >= 1; give e.g. 16 16 10000"


@pytest.mark.parametrize(
    ("line", "world_size", "fragment"),
    [
        (f"{BATCH} 30 {MICRO} 4", 4, f"{BATCH} 30: no multiple of {MICRO} 4 x 4 data-parallel ranks; use 16 or 32"),
        (f"{BATCH} 2 {MICRO} 4", None, "x 1 data-parallel rank; use 4"),
        (
            f"{INTERLEAVED} {BATCH} 6",
            4,
            f"{BATCH} 6: no multiple of {MICRO} 1 x 2 data-parallel ranks x --pipeline-model-parallel-size 2 of an "
            "interleaved pipeline; use 4 or 8",
        ),
        (INTERLEAVED, None, f"{BATCH}: missing; it must be a multiple of {MICRO} 1 x 1 data-parallel rank x"),
        (f"{BATCH} 32 {RAMP} 16 16", None, f"{RAMP} 16 16: {FORM}"),
        (f"{BATCH} 32 {RAMP} 16 16 100 1", None, FORM),
        (f"{BATCH} 32 {RAMP} 16 x 100", None, FORM),
        (f"{BATCH} 32 {RAMP} 16 1.5 100", None, FORM),
        (f"{BATCH} 32 {RAMP} 16 -4 100", None, FORM),
        (f"{BATCH} 32 {RAMP} 0 16 100", None, FORM),
        (f"{BATCH} 32 {RAMP} 16 0 100", None, FORM),
        (f"{BATCH} 32 {RAMP} 16 16 0", None, FORM),
        (f"{RAMP} 16 16 100", None, f"{RAMP} 16 16 100: grows to {BATCH}, which is missing; add it"),
        (f"{BATCH} 32 {RAMP} 64 8 100", None, f"START 64 is above {BATCH} 32; begin with at most 32"),
        (f"{BATCH} 32 {RAMP} 4 12 100", None, f"steps of 12 from 4 miss {BATCH} 32; use an INCREMENT of 4 or 7 or 14"),
        (f"{BATCH} 32 {MICRO} 4 {RAMP} 4 12 100", None, "use an INCREMENT of 4 or 28"),
        (f"{BATCH} 32 {MICRO} 4 {RAMP} 6 4 100", None, f"START 6 is no multiple of {MICRO} 4 x 1 data-parallel rank"),
        (f"{BATCH} 32 {MICRO} 2 {RAMP} 4 6 100", 2, f"INCREMENT 6 is no multiple of {MICRO} 2 x 2 data-parallel ranks"),
        (f"{BATCH} 32 {MICRO} 2 {RAMP} 4 6 100", 2, "; use 4 or 8"),
        (f"{INTERLEAVED} {BATCH} 8 {RAMP} 1 1 100", None, "START 1 is no multiple of"),
        (f"{INTERLEAVED} {BATCH} 8 {RAMP} 2 1 100", None, "INCREMENT 1 is no multiple of"),
    ],
)
def test_each_mistake_has_its_sentence(line, world_size, fragment):
    problems = dry_problems(line, world_size)
    assert any(fragment in problem for problem in problems), problems
    assert all(problem.startswith((BATCH, RAMP)) for problem in problems)


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


def test_mistakes_of_a_ramp_are_told_at_once():
    assert len(dry_problems(f"{BATCH} 32 {MICRO} 4 {RAMP} 6 6 100")) == 2


def test_the_ramp_is_not_measured_by_a_wrong_batch_size():
    (problem,) = dry_problems(f"{BATCH} 30 {MICRO} 4 {RAMP} 4 12 100")
    assert problem.startswith(f"{BATCH} 30: no multiple of")
