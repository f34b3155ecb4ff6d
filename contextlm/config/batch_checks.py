"""Checks of the batch sizes: whole micro-batches on every data-parallel rank, constant or growing."""

from __future__ import annotations

import re
from typing import NamedTuple

from contextlm.config.batch_ramp import batch_size_at
from contextlm.config.schema import Config
from contextlm.config.suggestions import divisors, nearest_multiples, nearest_numbers


class _Unit(NamedTuple):
    """What every batch size must be a multiple of, and where that comes from."""

    size: int
    origin: str


def batch_problems(config: Config, world_size: int) -> list[str]:
    """What is wrong with the global batch size and its ramp."""
    words, full = config.training.rampup_batch_size, config.training.global_batch_size
    ramp = f"--rampup-batch-size {' '.join(words)}"
    if words and not (len(words) == 3 and all(re.fullmatch("0*[1-9][0-9]*", word) for word in words)):
        return [f"{ramp}: is not START INCREMENT SAMPLES, three whole numbers >= 1; give e.g. 16 16 10000"]
    if words and full is None:
        return [f"{ramp}: grows to --global-batch-size, which is missing; add it"]
    if world_size % config.parallel.model_parallel_size:
        return []
    unit = _unit(config, world_size)
    problems = _constant(config.global_batch_size(world_size), given=full is not None, unit=unit)
    if words and not problems:
        start, increment, _ = map(int, words)
        problems = _ramp(start, increment, config.global_batch_size(world_size), unit)
        problems = [f"{ramp}: {problem}" for problem in problems]
    return problems or _samples(config.training.train_samples, batch_size_at(config, world_size, 0))


def _samples(given: int | None, first_batch: int) -> list[str]:
    if given is None or given >= first_batch:
        return []
    return [f"--train-samples {given}: fewer than the {first_batch} of one batch; give {first_batch} or more"]


def _unit(config: Config, world_size: int) -> _Unit:
    copies, per_pass = config.data_parallel_size(world_size), config.training.micro_batch_size
    size = per_pass * copies
    origin = f"--micro-batch-size {per_pass} x {copies} data-parallel rank{'s' if copies > 1 else ''}"
    if config.num_model_chunks == 1:
        return _Unit(size, origin)
    # Each stage turns to its next model chunk after as many micro-batches as there are stages.
    stages = config.parallel.pipeline_model_parallel_size
    return _Unit(size * stages, f"{origin} x --pipeline-model-parallel-size {stages} of an interleaved pipeline")


def _constant(size: int, *, given: bool, unit: _Unit) -> list[str]:
    if size % unit.size == 0:
        return []
    if not given:
        return [f"--global-batch-size: missing; give a multiple of {unit.origin}, e.g. {4 * unit.size}"]
    return [f"--global-batch-size {size}: no multiple of {unit.origin}; use {nearest_multiples(size, unit.size)}"]


def _ramp(start: int, increment: int, full: int, unit: _Unit) -> list[str]:
    """START and INCREMENT are batch sizes too, and the steps must meet the full size."""
    problems = [
        f"{name} {size} is no multiple of {unit.origin}; use {nearest_multiples(size, unit.size)}"
        for name, size in (("START", start), ("INCREMENT", increment))
        if size % unit.size
    ]
    if start > full:
        problems.append(f"START {start} is above --global-batch-size {full}; begin with at most {full}")
    elif not problems and (full - start) % increment:
        steps = (unit.size * divisor for divisor in divisors((full - start) // unit.size))
        problems.append(
            f"steps of {increment} from {start} miss --global-batch-size {full}; "
            f"use an INCREMENT of {nearest_numbers(increment, steps)}"
        )
    return problems
