"""Learning rate and weight decay of an iteration: functions of its number, so that resuming needs no state.

The shapes and their names are those of Megatron-LM's `OptimizerParamScheduler`.
"""

from __future__ import annotations

import math

from contextlm.config.schema import OptimizerConfig


def learning_rate(config: OptimizerConfig, iteration: int, decay_iters: int) -> float:
    """The learning rate with which `iteration` (the first is 1) updates the weights.

    Linear warm-up to `lr` at iteration `lr_warmup_iters`, then decay to `min_lr` at iteration `decay_iters`,
    which stays. An inverse square root falls from the end of the warm-up and does not reach `min_lr` by itself.
    """
    warmup, style = config.lr_warmup_iters, config.lr_decay_style
    if iteration < warmup:
        return config.lr * iteration / warmup
    if style == "constant":
        return config.lr
    if style == "inverse-square-root" and iteration <= decay_iters:
        return max(config.min_lr, config.lr * math.sqrt(max(warmup, 1) / iteration))
    begin = decay_iters - (config.lr_wsd_decay_iters or 0) if style == "WSD" else warmup
    shape = config.lr_wsd_decay_style if style == "WSD" else style
    progress = 1.0 if iteration >= decay_iters else max(iteration - begin, 0) / (decay_iters - begin)
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


def weight_decay(config: OptimizerConfig, iteration: int, train_iters: int) -> float:
    """The weight decay of an iteration: constant, or from `start_weight_decay` at 0 to the end's at the last."""
    if config.weight_decay_incr_style == "constant":
        return config.weight_decay
    progress = min(iteration / train_iters, 1.0)
    left = _share_left(config.weight_decay_incr_style, progress)
    start, end = config.start_weight_decay or 0.0, config.end_weight_decay or 0.0
    return end + left * (start - end)
