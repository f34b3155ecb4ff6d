"""What a checkpoint holds, read in one process without its run."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch


def stored(checkpoint: Path) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Every tensor of a checkpoint, by key: weights, moments, generators; and the keys of what is none."""
    from torch.distributed.checkpoint import FileSystemReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata
    from torch.distributed.checkpoint.state_dict_loader import load

    reader = FileSystemReader(checkpoint)
    entries = reader.read_metadata().state_dict_metadata
    tensors = {
        key: torch.empty(entry.size, dtype=entry.properties.dtype)
        for key, entry in entries.items()
        if isinstance(entry, TensorStorageMetadata)
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that there are no other processes
        load(tensors, storage_reader=reader, no_dist=True)
    return tensors, sorted(entries.keys() - tensors.keys())
