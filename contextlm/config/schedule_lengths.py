"""How long the schedules of learning rate and weight decay are, and where in them an iteration stands.

A run whose length is `--train-iters` counts them in iterations, one of `--train-samples` in samples. The schedules
themselves (`training/schedule.py`) need not know which.
"""

from __future__ import annotations

from typing import NamedTuple

from contextlm.config.schema import Config


class ScheduleLengths(NamedTuple):
    """All in iterations, or all in samples.

    Attributes:
        run: of the whole run, in which weight decay goes from start to end.
        decay: until the least learning rate.
        warmup: until the highest; a share of `decay` need not be whole.
        wsd_decay: of WSD's decay, at the end of `decay`.
    """

    run: int
    decay: int
    warmup: float = 0
    wsd_decay: int = 0


def schedule_lengths(config: Config) -> ScheduleLengths:
    """The lengths that are given, with what follows from others; 1 for a run of unknown length."""
    training, given = config.training, config.optimizer
    if training.train_samples is not None:
        run, decay = training.train_samples, given.lr_decay_samples
        warmup, wsd_decay = given.lr_warmup_samples, given.lr_wsd_decay_samples
    else:
        run, decay = training.train_iters or 1, given.lr_decay_iters
        warmup, wsd_decay = given.lr_warmup_iters, given.lr_wsd_decay_iters
    decay = decay or run
    share = given.lr_warmup_fraction
    return ScheduleLengths(run, decay, warmup if share is None else share * decay, wsd_decay or 0)
