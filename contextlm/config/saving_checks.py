"""Checks of which checkpoints are made and which of them stay."""

from __future__ import annotations

from contextlm.config.schema import Config
from contextlm.config.suggestions import nearest_multiples


def saving_problems(config: Config) -> list[str]:
    """What is wrong with the intervals of checkpoints, and with what is to be kept of them."""
    given, problems = config.checkpoint, []
    interval, kept = given.save_interval, given.save_retain_interval
    if interval is not None and kept is not None and kept % interval:
        problems.append(
            f"--save-retain-interval {kept}: is no multiple of --save-interval {interval}, so some of those iterations "
            f"are never saved; use {nearest_multiples(kept, interval)}"
        )
    return problems + (_best(config) if given.save_best else [])


def _best(config: Config) -> list[str]:
    """Only a checkpoint whose iteration is evaluated can be the best."""
    training, interval = config.training, config.checkpoint.save_interval
    if training.eval_iters == 0 and not training.full_validation:
        return ["--save-best: --eval-iters 0 finds no validation loss; drop one of the two"]
    if interval is None or interval % training.eval_interval == 0 or training.eval_interval % interval == 0:
        return []
    return [
        f"--save-best: of the checkpoints of --save-interval {interval} few are evaluated by --eval-interval "
        f"{training.eval_interval}; use e.g. --eval-interval {interval}"
    ]
