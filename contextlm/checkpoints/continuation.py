"""What a continued run does otherwise than the checkpoint's: told, or refused where nobody asked for it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from contextlm.checkpoints.checkpoint_folder import CONFIG_FILE, read_run
from contextlm.config.batch_ramp import batch_size_at, with_batch_size
from contextlm.config.schedule_lengths import schedule_lengths
from contextlm.config.schema import Config
from contextlm.config.yaml_file import load
from contextlm.errors import UserError

_DOCUMENT_ENDS = ("reset_position_ids", "reset_attention_mask", "eod_mask_loss")


def check_batch_size(config: Config, world_size: int, saved: dict[str, Any]) -> None:
    """A batch size that follows from the number of processes must not change by itself with that number.

    Args:
        config: of the run that continues.
        world_size: its number of processes.
        saved: the checkpoint's `run.json`.

    Raises:
        UserError: it would. Another one that is given is a choice.
    """
    before, after = saved["global_batch_size"], batch_size_at(config, world_size, saved["consumed_samples"])
    if config.training.global_batch_size is None and before != after:
        raise UserError(
            f"--global-batch-size: not given, and {after} follows from {world_size} process(es), but the checkpoint's "
            f"run had {before}; give --global-batch-size {before} to go on with it, or {after} to change it"
        )


def changed_options(folder: Path, config: Config) -> dict[str, tuple[object, object]]:
    """Options of training, of the optimizer and of document ends that are not the checkpoint's: (before, after)."""
    saved = with_batch_size(load(folder / CONFIG_FILE), read_run(folder)["world_size"])
    before, after = _options(saved), _options(config)
    return {name: (before[name], value) for name, value in after.items() if before[name] != value}


def _options(config: Config) -> dict[str, object]:
    """Those options, by name; how long the decay is, resolved."""
    ends = {name: getattr(config.data, name) for name in _DOCUMENT_ENDS}
    decay = "lr_decay_iters" if config.training.train_samples is None else "lr_decay_samples"
    return asdict(config.training) | asdict(config.optimizer) | ends | {decay: schedule_lengths(config).decay}
