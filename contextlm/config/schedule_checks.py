"""Checks of the schedules of learning rate and weight decay."""

from __future__ import annotations

from contextlm.config.schema import Config, OptimizerConfig


def schedule_problems(config: Config) -> list[str]:
    """What is wrong with learning rate and weight decay."""
    optimizer, problems = config.optimizer, []
    if optimizer.min_lr > optimizer.lr:
        problems.append(f"--min-lr {optimizer.min_lr:g}: above --lr {optimizer.lr:g}; use at most {optimizer.lr:g}")
    decays = optimizer.lr_decay_iters or config.training.train_iters
    if decays is not None and 0 < decays <= optimizer.lr_warmup_iters:
        name = "--lr-decay-iters" if optimizer.lr_decay_iters else "--train-iters"
        problems.append(
            f"--lr-warmup-iters {optimizer.lr_warmup_iters}: the warm-up must end before {name} {decays}; "
            f"use at most {decays - 1}"
        )
    return [*problems, *_wsd(optimizer, decays), *_weight_decay(optimizer)]


def _wsd(optimizer: OptimizerConfig, decays: int | None) -> list[str]:
    if optimizer.lr_decay_style != "WSD":
        if optimizer.lr_wsd_decay_iters is None:
            return []
        return [f"--lr-wsd-decay-iters {optimizer.lr_wsd_decay_iters}: of --lr-decay-style WSD; add it, or drop this"]
    if optimizer.lr_wsd_decay_iters is None:
        return ["--lr-decay-style WSD: says not how long the decay is; add --lr-wsd-decay-iters"]
    left = None if decays is None else decays - optimizer.lr_warmup_iters
    if left is None or optimizer.lr_wsd_decay_iters <= max(left, 0):
        return []
    return [
        f"--lr-wsd-decay-iters {optimizer.lr_wsd_decay_iters}: only {max(left, 0)} iterations follow the warm-up; "
        f"use at most {max(left, 1)}"
    ]


def _weight_decay(optimizer: OptimizerConfig) -> list[str]:
    ends = {
        "--start-weight-decay": optimizer.start_weight_decay,
        "--end-weight-decay": optimizer.end_weight_decay,
    }
    style = optimizer.weight_decay_incr_style
    if style == "constant":
        given = [f"{flag} {value:g}" for flag, value in ends.items() if value is not None]
        if not given:
            return []
        return [f"{' and '.join(given)}: weight decay is constant; add --weight-decay-incr-style linear or cosine"]
    missing = [flag for flag, value in ends.items() if value is None]
    return [f"--weight-decay-incr-style {style}: goes from one value to another; add {flag}" for flag in missing]
