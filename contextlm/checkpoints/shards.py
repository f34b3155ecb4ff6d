"""The tensors of a checkpoint on their way to the disk, in megatron-core's torch_dist format.

All ranks plan together who writes what; then each copies its share to host memory and writes it from threads, while
it goes on training. megatron-core's own way starts processes, forked from one that is full of threads, and waits for
ever if one of them is killed.
"""

from __future__ import annotations

import copy
import queue
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from megatron.core.dist_checkpointing.core import CheckpointingConfig, save_config
from megatron.core.dist_checkpointing.dict_utils import nested_values
from megatron.core.dist_checkpointing.mapping import ShardedStateDict, ShardedTensor
from megatron.core.dist_checkpointing.serialization import _CONTENT_METADATA_KEY
from megatron.core.dist_checkpointing.state_dict_utils import save_preprocess
from megatron.core.dist_checkpointing.strategies.common import TorchCommonSaveStrategy
from megatron.core.dist_checkpointing.strategies.filesystem_async import FileSystemWriterAsync
from megatron.core.dist_checkpointing.strategies.torch import TorchDistSaveShardedStrategy
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.storage import WriteResult

from contextlm.checkpoints import manifest
from contextlm.checkpoints.background import in_background
from contextlm.checkpoints.sharded_state import CONTENT

_FORMAT = ("torch_dist", 1)


class Piece(NamedTuple):
    """A file that was written: where its tensors lie in it, and its hash."""

    results: list[WriteResult]
    digests: manifest.Digests


class Shards:
    """What one rank writes of a checkpoint.

    Args:
        state: what the checkpoint holds; tensors as `ShardedTensor`, and plain values, which are the same on all ranks.
        folder: where it is written; it must be there. Collective.
    """

    def __init__(self, state: ShardedStateDict, folder: Path) -> None:
        self.folder = folder
        sharded, common = save_preprocess(state | {_CONTENT_METADATA_KEY: CONTENT})
        # What megatron-core did not copy while it planned is copied by `to_host`.
        self._shared = {_storage(tensor.data) for tensor in nested_values(sharded) if isinstance(tensor, ShardedTensor)}
        self._common = copy.deepcopy(common)
        self._writer, self._metadata = _Planner(*_FORMAT).async_save(sharded, folder)

    @property
    def num_bytes(self) -> int:
        """The size of the tensors of all ranks; known to the first one, 0 on the others."""
        entries = [] if self._metadata is None else self._metadata.state_dict_metadata.values()
        return sum(
            entry.size.numel() * entry.properties.dtype.itemsize
            for entry in entries
            if isinstance(entry, TensorStorageMetadata)
        )

    def to_host(self) -> None:
        """Copy to host memory what training would change before it is written."""
        self._writer.write_buckets = [
            (path, name, (plain, [(item, self._copied(tensor)) for item, tensor in tensors]))
            for path, name, (plain, tensors) in self._writer.write_buckets
        ]
        if torch.cuda.is_available():
            torch.cuda.current_stream().synchronize()

    def write(self, called_off: threading.Event) -> list[Future[Piece]]:
        """Begin to write this rank's files, a thread for each; what was copied is let go as they end.

        Args:
            called_off: set to end the threads before the next tensor.
        """
        buckets, self._writer.write_buckets = self._writer.write_buckets, None
        return [in_background(partial(_write, self._writer, bucket, called_off)) for bucket in buckets]

    def complete(self, pieces: Iterable[Piece]) -> None:
        """Write what belongs to no rank: the index of all tensors, and the plain values. The first rank does it.

        Args:
            pieces: of all ranks.
        """
        assert self._metadata is not None
        self._writer.finish(self._metadata, [piece.results for piece in pieces])
        TorchCommonSaveStrategy("torch", 1).save_common(self._common, self.folder)
        save_config(CheckpointingConfig(*_FORMAT), str(self.folder))

    def _copied(self, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.is_cuda:
            return tensor.to("cpu", non_blocking=True)  # into pinned memory
        return tensor.clone() if _storage(tensor) in self._shared else tensor


class _Planner(TorchDistSaveShardedStrategy):
    """megatron-core's plan, without its ways to carry it out."""

    def _get_save_and_finalize_callbacks(
        self, writer: FileSystemWriterAsync, planned: tuple[Any, ...]
    ) -> tuple[FileSystemWriterAsync, Metadata | None]:
        return writer, planned[1]


def _write(writer: FileSystemWriterAsync, bucket: tuple[Any, ...], called_off: threading.Event) -> Piece:
    """Write, sync and hash one file, with megatron-core's own function; it reports errors as it reports results."""
    path, name, (plain, tensors) = bucket
    written: queue.Queue = queue.Queue()
    counted: queue.Queue = queue.Queue()
    counted.put(0)
    bucket = (path, name, (plain, _until(called_off, tensors)))
    writer.write_preloaded_data([writer.transforms], 0, bucket, written, counted, use_fsync=True)
    _, results = written.get_nowait()
    if isinstance(results, Exception):
        raise _cause(results)
    return Piece(results, manifest.digests(Path(path).parent, [name]))


def _cause(error: Exception) -> BaseException:
    """The system's error, if one is behind it: of a failed write torch tells its own position in the file."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    return error if cause is None else cause


def _until(called_off: threading.Event, items: Iterable[Any]) -> Iterator[Any]:
    for item in items:
        if called_off.is_set():
            raise InterruptedError("called off")
        yield item


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
