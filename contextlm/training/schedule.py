"""Learning rate and weight decay: functions of a position in the run, so that resuming needs no state.

A position is the number of an iteration (the first is 1) or, where the run is given in samples, how many have been
consumed when the iteration ends. The shapes and their names are those of Megatron-LM's `OptimizerParamScheduler`.

Not copied is where an update stands in them. Megatron-LM moves its scheduler after each update that was not skipped:
its update n has the values of position n - 1, the first one of a warm-up a learning rate of 0, and skipped fp16 updates
hold the schedule up. Here update n has those of position n, so that the first one is not wasted, and a skipped one
counts as any other iteration: the position follows from the iteration alone.
"""

from __future__ import annotations

import math

from contextlm.config.schedule_lengths import ScheduleLengths
from contextlm.config.schema import OptimizerConfig


def learning_rate(config: OptimizerConfig, position: int, lengths: ScheduleLengths) -> float:
    """The learning rate of the update at `position`.

    Linear warm-up to `lr`, then decay to `min_lr`, which stays. An inverse square root falls from the end of the
    warm-up and does not reach `min_lr` by itself.
    """
    warmup, decay, style = lengths.warmup, lengths.decay, config.lr_decay_style
    if position < warmup:
        return config.lr * position / warmup
    if style == "constant":
        return config.lr
    if style == "inverse-square-root" and position <= decay:
        return max(config.min_lr, config.lr * math.sqrt(max(warmup, 1) / position))
    begin = decay - lengths.wsd_decay if style == "WSD" else warmup
    shape = config.lr_wsd_decay_style if style == "WSD" else style
    progress = 1.0 if position >= decay else max(position - begin, 0) / (decay - begin)
    return config.min_lr + _share_left(shape, progress) * (config.lr - config.min_lr)


def _share_left(shape: str, progress: float) -> float:
    """What is left of the decay, 1 to 0, when `progress` of it, 0 to 1, is over."""
    if shape == "linear":
        return 1 - progress
    if shape == "exponential":
        return 2 * 0.5**progress - 1
    if shape == "minus_sqrt":
        return 1 - math.sqrt(progress)
    return 0.0 if shape == "inverse-square-root" else 0.5 * (1 + math.cos(math.pi * progress))


def weight_decay(config: OptimizerConfig, position: int, lengths: ScheduleLengths) -> float:
    """The weight decay at `position`: constant, or from `start_weight_decay` at 0 to the end's at the run's end."""
    if config.weight_decay_incr_style == "constant":
        return config.weight_decay
    progress = min(position / lengths.run, 1.0)
    left = _share_left(config.weight_decay_incr_style, progress)
    start, end = config.start_weight_decay or 0.0, config.end_weight_decay or 0.0
    return end + left * (start - end)
