"""A checkpoint is written without another process."""

from __future__ import annotations

import threading
from pathlib import Path
from unittest import mock

import psutil
import pytest
import torch


def save(folder: Path) -> dict[str, torch.Tensor]:
    """Write two tensors; returns them."""
    from megatron.core.dist_checkpointing import ShardedTensor

    from contextlm.checkpoints.shards import Shards

    tensors = {name: torch.randn(3, 4) for name in ("one", "other")}
    folder.mkdir()
    state = {name: ShardedTensor.from_rank_offsets(name, tensor) for name, tensor in tensors.items()}
    shards = Shards(state, folder)
    shards.complete([piece.result() for piece in shards.write(threading.Event())])
    return tensors


def test_what_is_written_is_read_and_no_process_was_started(layout, tmp_path):
    from megatron.core import dist_checkpointing
    from megatron.core.dist_checkpointing import ShardedTensor

    before = {process.pid for process in psutil.Process().children(recursive=True)}
    tensors = save(tmp_path / "saved")
    assert {process.pid for process in psutil.Process().children(recursive=True)} <= before
    wanted = {name: ShardedTensor.from_rank_offsets(name, torch.empty(3, 4)) for name in tensors}
    read = dist_checkpointing.load(wanted, str(tmp_path / "saved"))
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())


def test_a_failed_write_fails_the_save(layout, tmp_path):
    from megatron.core.dist_checkpointing.strategies import filesystem_async

    full = OSError(28, "No space left on device")
    with (
        mock.patch.object(filesystem_async, "_write_item", side_effect=full),
        pytest.raises(OSError, match="No space left on device"),
    ):
        save(tmp_path / "full")
    save(tmp_path / "then")


def test_megatron_core_is_the_one_the_mend_was_written_for(layout):
    from megatron.core.dist_checkpointing.strategies import filesystem_async

    from contextlm.megatron import checkpoint_writer
    from contextlm.megatron.rewrite import SourceChanged

    checkpoint_writer.install()  # changes nothing
    other = mock.patch.object(filesystem_async, "_get_write_results_queue", lambda: None)
    with other, pytest.raises(SourceChanged):
        checkpoint_writer.install()
