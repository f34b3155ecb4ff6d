"""A checkpoint of weights alone, made by no training run: `--finetune` and `--init-backbone-from` begin from it."""

from __future__ import annotations

import contextlib
import shutil
import threading
from pathlib import Path
from typing import Any

import torch

from contextlm import atomic_files
from contextlm.checkpoints import checkpoint_folder, manifest
from contextlm.checkpoints.sharded_state import weights_state
from contextlm.checkpoints.shards import Shards
from contextlm.config.schema import Config
from contextlm.config.yaml_file import write as write_config
from contextlm.data.tokenizer_interface import Tokenizer
from contextlm.errors import UserError, tell_warnings
from contextlm.parallel.layout import Layout
from contextlm.training.provenance import made_by


def save_weights(
    model: torch.nn.Module, layout: Layout, config: Config, tokenizer: Tokenizer, root: Path, facts: dict[str, Any]
) -> Path:
    """Write the weights of one process's whole model as iteration 0 of `root`; returns its folder.

    Args:
        model: whole, under a layout of one process.
        layout: that one.
        config: of the model.
        tokenizer: of the model.
        root: the `--save` folder.
        facts: what else `run.json` is to say.

    Raises:
        UserError: it cannot be written; nothing is left.
    """
    temporary = checkpoint_folder.temporary_folder(root, 0)
    tell_warnings(checkpoint_folder.begin(temporary))
    try:
        shards = Shards(weights_state([model], layout), temporary)
        shards.complete([piece.result() for piece in shards.write(threading.Event())])
        write_config(config, temporary / checkpoint_folder.CONFIG_FILE)
        tokenizer.save(temporary)
        run = {
            "iteration": 0,
            "consumed_samples": 0,
            "weights_only": True,
            "world_size": 1,
            "vocab_size": tokenizer.vocab_size,
            "tokenizer_fingerprint": tokenizer.fingerprint,
            "data_fingerprint": None,
            **made_by(),
            **facts,
        }
        atomic_files.write_json(temporary / checkpoint_folder.RUN_FILE, run)
        manifest.write(temporary, manifest.digests(temporary, manifest.written_by(temporary, 0)))
        return checkpoint_folder.publish(temporary, 0)
    except OSError as error:
        raise UserError(f"checkpoint {temporary} cannot be written: {error}; nothing was kept") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        with contextlib.suppress(OSError):  # it holds the checkpoint, or was made for it
            root.rmdir()
