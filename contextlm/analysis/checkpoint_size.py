"""How large a checkpoint is, and how many of them a run leaves, before there is one."""

from __future__ import annotations

from contextlm.analysis.parameters import count_parameters
from contextlm.config.batch_ramp import num_iterations
from contextlm.config.schema import Config

FILES_BYTES = 1 << 20
"""Room for what lies beside the tensors: generators, indexes, a small tokenizer."""


def checkpoint_bytes(config: Config, vocab_size: int) -> int:
    """Bytes of one checkpoint: weights in the precision of the run, AdamW's moments and with 16 bits masters in fp32.

    Args:
        vocab_size: of the tokenizer, unpadded.
    """
    per_parameter = 2 + 12 if config.half_precision else 4 + 8
    return per_parameter * count_parameters(config, vocab_size).total + FILES_BYTES


def num_saves(config: Config, world_size: int, iteration: int) -> int:
    """Checkpoints that a run writes after `iteration`, the one at its end included."""
    last, interval = num_iterations(config, world_size), config.checkpoint.save_interval
    if config.checkpoint.save is None or last <= iteration:
        return 0
    if interval is None:
        return 1
    return last // interval - iteration // interval + (last % interval > 0)


def num_kept(config: Config, world_size: int, iteration: int) -> int:
    """Checkpoints of those that are there at once at most: a new one is complete before an old one is deleted."""
    given, saves = config.checkpoint, num_saves(config, world_size, iteration)
    if given.save_total_limit is None and given.save_retain_interval is None:
        return saves
    last, kept = num_iterations(config, world_size), given.save_total_limit or 1
    if given.save_retain_interval is not None:
        kept += last // given.save_retain_interval - iteration // given.save_retain_interval
    return min(saves, kept + given.save_best + 1)
