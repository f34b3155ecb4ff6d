"""A run that continues says which of its options are not the checkpoint's."""

from __future__ import annotations

import json
from pathlib import Path

from contextlm.checkpoints.checkpoint_folder import CONFIG_FILE, RUN_FILE
from contextlm.checkpoints.continuation import changed_options
from contextlm.config.schema import Config
from contextlm.config.yaml_file import dump
from tests.small_configs import small_config


def changed(folder: Path, before: Config, after: Config) -> dict[str, tuple[object, object]]:
    (folder / CONFIG_FILE).write_text(dump(before))
    (folder / RUN_FILE).write_text(json.dumps({"world_size": 1}))
    return changed_options(folder, after)


def test_options_of_training_optimizer_and_document_ends(tmp_path: Path) -> None:
    before = small_config(lr=1e-3, global_batch_size=2, micro_batch_size=2)
    after = small_config(
        lr=2e-3, global_batch_size=4, micro_batch_size=2, reset_attention_mask=True, eod_mask_loss=True
    )
    assert changed(tmp_path, before, after) == {
        "global_batch_size": (2, 4),
        "lr": (1e-3, 2e-3),
        "reset_attention_mask": (False, True),
        "eod_mask_loss": (False, True),
    }


def test_nothing_else_is_said(tmp_path: Path) -> None:
    batches = {"global_batch_size": 2, "micro_batch_size": 2}
    assert changed(tmp_path, small_config(**batches), small_config(**batches, save_interval=7, data_path=("x",))) == {}
