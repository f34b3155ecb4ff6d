"""Checkpoints are written without another process, and a write that fails is an error and not a silence."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import psutil
import pytest
import torch


def save(folder: Path) -> dict[str, torch.Tensor]:
    """Save two tensors as megatron-core does; returns them."""
    from megatron.core import dist_checkpointing
    from megatron.core.dist_checkpointing import ShardedTensor

    tensors = {name: torch.randn(3, 4) for name in ("one", "other")}
    folder.mkdir()
    state = {name: ShardedTensor.from_rank_offsets(name, tensor) for name, tensor in tensors.items()}
    dist_checkpointing.save(state, str(folder))
    return tensors


def test_what_is_written_is_read_and_no_process_was_started(layout, tmp_path):
    from megatron.core import dist_checkpointing
    from megatron.core.dist_checkpointing import ShardedTensor

    before = {process.pid for process in psutil.Process().children(recursive=True)}
    for save_number in range(2):
        folder = tmp_path / str(save_number)
        tensors = save(folder)
        assert {process.pid for process in psutil.Process().children(recursive=True)} <= before
        wanted = {name: ShardedTensor.from_rank_offsets(name, torch.empty(3, 4)) for name in tensors}
        read = dist_checkpointing.load(wanted, str(folder))
        assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())


def test_a_failed_write_fails_the_save(layout, tmp_path):
    from megatron.core.dist_checkpointing.strategies import filesystem_async
    from torch.distributed.checkpoint import CheckpointException

    full = OSError(28, "No space left on device")
    with (
        mock.patch.object(filesystem_async, "_write_item", side_effect=full),
        pytest.raises(CheckpointException, match="No space left on device"),
    ):
        save(tmp_path / "full")
    save(tmp_path / "then")


def test_megatron_core_is_the_one_the_mend_was_written_for(layout):
    from megatron.core.dist_checkpointing.strategies import filesystem_async

    from contextlm.megatron import checkpoint_writer
    from contextlm.megatron.rewrite import SourceChanged

    writer = filesystem_async.FileSystemWriterAsync
    assert writer.write_preloaded_data_multiproc is checkpoint_writer.write_buckets_from_threads
    checkpoint_writer.install()  # changes nothing
    other = staticmethod(lambda *arguments: None)
    with mock.patch.object(writer, "write_preloaded_data_multiproc", other), pytest.raises(SourceChanged):
        checkpoint_writer.install()
