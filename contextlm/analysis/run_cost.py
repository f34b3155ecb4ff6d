"""Time and money of a whole run on given GPUs: at one MFU throughout, and as far as the layout lets it."""

from __future__ import annotations

import math
from typing import NamedTuple

from contextlm.analysis.flops import training_flops_per_token
from contextlm.analysis.step_time import Machine, StepTime, step_time
from contextlm.config.batch_ramp import num_iterations, samples_after
from contextlm.config.schema import Config


class Cost(NamedTuple):
    """What a run takes; `price` is None where that of a GPU hour is."""

    hours: float
    days: float
    gpu_hours: float
    price: float | None


class RunCost(NamedTuple):
    """A run of so many tokens.

    Attributes:
        at_mfu: if all GPUs reach the machine's MFU all the time: tokens x FLOPs per token / (GPUs x peak x MFU).
        step: seconds of a step in this layout, by what they are spent on.
        mfu: of this layout, 0..1.
        in_layout: the run at that.
    """

    tokens: float
    at_mfu: Cost
    step: StepTime
    mfu: float
    in_layout: Cost


def run_cost(
    config: Config,
    vocab_size: int,
    world_size: int,
    machine: Machine,
    tokens: float,
    price_per_gpu_hour: float | None = None,
) -> RunCost:
    """What a run of `world_size` GPUs costs."""
    per_token = training_flops_per_token(config, vocab_size)

    def cost(seconds: float) -> Cost:
        gpu_hours = seconds * world_size / 3600
        price = None if price_per_gpu_hour is None else gpu_hours * price_per_gpu_hour
        return Cost(seconds / 3600, seconds / 86400, gpu_hours, price)

    step = step_time(config, vocab_size, world_size, machine)
    tokens_of_step = config.global_batch_size(world_size) * config.model.seq_length
    steps = math.ceil(tokens / tokens_of_step)
    mfu = tokens_of_step * per_token / (step.total * world_size * machine.peak_tflops * 1e12)
    at_mfu = cost(tokens * per_token / (world_size * machine.speed))
    return RunCost(tokens, at_mfu, step, mfu, cost(steps * step.total))


def tokens_of_run(config: Config, world_size: int) -> int | None:
    """Tokens that the configuration asks for; None if it does not say."""
    iterations = num_iterations(config, world_size)
    return samples_after(config, world_size, iterations) * config.model.seq_length if iterations else None
