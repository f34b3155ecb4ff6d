"""The learning rate of an iteration: a function of its number, so that resuming needs no state."""

from __future__ import annotations

import math

from contextlm.config.schema import OptimizerConfig


def learning_rate(config: OptimizerConfig, iteration: int, decay_iters: int) -> float:
    """The learning rate with which `iteration` (the first is 1) updates the weights.

    Linear warm-up to `lr` at iteration `lr_warmup_iters`, then decay to `min_lr` at iteration `decay_iters`,
    which stays.
    """
    warmup = config.lr_warmup_iters
    if iteration < warmup:
        return config.lr * iteration / warmup
    if config.lr_decay_style == "constant":
        return config.lr
    progress = 1.0 if iteration >= decay_iters else (iteration - warmup) / (decay_iters - warmup)
    share = {"linear": 1 - progress, "cosine": 0.5 * (1 + math.cos(math.pi * progress))}[config.lr_decay_style]
    return config.min_lr + share * (config.lr - config.min_lr)
