"""Checks of the length of the run and of the schedules of learning rate and weight decay."""

from __future__ import annotations

from contextlm.config.schedule_lengths import schedule_lengths
from contextlm.config.schema import Config, OptimizerConfig


def schedule_problems(config: Config) -> list[str]:
    """What is wrong with the length of the run, learning rate and weight decay."""
    optimizer = config.optimizer
    if mixed := _units(config):  # what follows from lengths in two units would mislead
        return [*_rates(optimizer), *mixed, *_weight_decay(optimizer)]
    return [*_rates(optimizer), *_warmup(config), *_wsd(config), *_weight_decay(optimizer)]


def _rates(optimizer: OptimizerConfig) -> list[str]:
    if optimizer.min_lr <= optimizer.lr:
        return []
    return [f"--min-lr {optimizer.min_lr:g}: above --lr {optimizer.lr:g}; use at most {optimizer.lr:g}"]


def _units(config: Config) -> list[str]:
    """Lengths in iterations beside lengths in samples."""
    training, optimizer = config.training, config.optimizer
    iterations, samples = training.train_iters, training.train_samples
    if None not in (iterations, samples):
        return [f"--train-samples {samples}: --train-iters {iterations} is a length too; keep one of the two"]
    unit, other = ("samples", "iters") if samples is not None else ("iters", "samples")
    run = f"in samples (--train-samples {samples})" if samples is not None else "in iterations"
    switch = "" if samples is not None else ", or give its length with --train-samples"
    lengths = {name: getattr(optimizer, f"{name}_{other}") for name in ("lr_decay", "lr_wsd_decay", "lr_warmup")}
    return [
        f"--{name.replace('_', '-')}-{other} {value}: the run is {run}; use --{name.replace('_', '-')}-{unit}{switch}"
        for name, value in lengths.items()
        if value
    ]


def _unit(config: Config) -> str:
    return "iters" if config.training.train_samples is None else "samples"


def _decay(config: Config) -> tuple[str, int] | None:
    """The flag and the value that say how long the decay is; None where nothing does, as in a dry run."""
    unit = _unit(config)
    given, run = getattr(config.optimizer, f"lr_decay_{unit}"), getattr(config.training, f"train_{unit}")
    return (f"--lr-decay-{unit}", given) if given else (f"--train-{unit}", run) if run else None


def _warmup(config: Config) -> list[str]:
    unit, optimizer, decay = _unit(config), config.optimizer, _decay(config)
    given, share = getattr(optimizer, f"lr_warmup_{unit}"), optimizer.lr_warmup_fraction
    if share is not None and given:
        return [f"--lr-warmup-fraction {share:g}: --lr-warmup-{unit} {given} says it too; keep one of the two"]
    if share == 1:
        return ["--lr-warmup-fraction 1: the warm-up must end before the decay; use less than 1, e.g. 0.1"]
    if decay is None or share is not None or given < decay[1]:
        return []
    return [
        f"--lr-warmup-{unit} {given}: the warm-up must end before {decay[0]} {decay[1]}; use at most {decay[1] - 1}"
    ]


def _wsd(config: Config) -> list[str]:
    unit, optimizer, lengths = _unit(config), config.optimizer, schedule_lengths(config)
    flag = f"--lr-wsd-decay-{unit}"
    if optimizer.lr_decay_style != "WSD":
        return [f"{flag} {lengths.wsd_decay}: of --lr-decay-style WSD; add it, or drop this"] * bool(lengths.wsd_decay)
    if not lengths.wsd_decay:
        return [f"--lr-decay-style WSD: says not how long the decay is; add {flag}"]
    left = max(int(lengths.decay - lengths.warmup), 0)
    if _decay(config) is None or lengths.wsd_decay <= left:
        return []
    if not left and _warmup(config):  # which says it already
        return []
    if not left:
        return [f"{flag} {lengths.wsd_decay}: nothing is left after {_warmup_words(config)}; shorten the warm-up"]
    word = {"iters": "iteration", "samples": "sample"}[unit]
    follow = f"only 1 {word} follows" if left == 1 else f"only {left} {word}s follow"
    return [f"{flag} {lengths.wsd_decay}: {follow} the warm-up; use at most {left}"]


def _warmup_words(config: Config) -> str:
    """The option that gives the warm-up's length, as it may have been typed."""
    unit, optimizer = _unit(config), config.optimizer
    if optimizer.lr_warmup_fraction is not None:
        return f"--lr-warmup-fraction {optimizer.lr_warmup_fraction:g}"
    return f"--lr-warmup-{unit} {getattr(optimizer, f'lr_warmup_{unit}')}"


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
