"""What lies in a checkpoint, from its index and its small files: no model is built, no tensor read."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from contextlm.checkpoints.checkpoint_folder import CONFIG_FILE
from contextlm.config.yaml_file import load
from contextlm.megatron.safe_loading import read_index

PARTS = ("backbone", "head", "optimizer", "rng")
_PREFIXES = {"context_head.": "head", "optimizer.": "optimizer", "rng.": "rng"}


@dataclass(frozen=True)
class StoredTensor:
    """A whole tensor, however many pieces it is stored in."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    files: tuple[str, ...]

    @property
    def part(self) -> str:
        """Which of `PARTS` it belongs to."""
        return next((part for prefix, part in _PREFIXES.items() if self.name.startswith(prefix)), "backbone")


def tensors(folder: Path) -> list[StoredTensor]:
    """The tensors of a checkpoint, by name.

    Raises:
        UserError: its index cannot be read.
    """
    index, files = read_index(folder), defaultdict(set)
    for key, place in index.storage_data.items():
        files[key.fqn].add(place.relative_path)
    return [
        StoredTensor(
            name,
            tuple(entry.size),
            str(entry.properties.dtype).removeprefix("torch."),
            math.prod(entry.size) * entry.properties.dtype.itemsize,
            tuple(sorted(files[name])),
        )
        for name, entry in sorted(index.state_dict_metadata.items())
        if isinstance(entry, TensorStorageMetadata)
    ]


def totals(found: Iterable[StoredTensor]) -> dict[str, dict[str, int]]:
    """Tensors, values and bytes of each part that there is."""
    sums = {part: {"tensors": 0, "values": 0, "bytes": 0} for part in PARTS}
    for tensor in found:
        total = sums[tensor.part]
        total["tensors"] += 1
        total["values"] += math.prod(tensor.shape)
        total["bytes"] += tensor.bytes
    return {part: total for part, total in sums.items() if total["tensors"]}


def options(folder: Path) -> dict[str, Any]:
    """The options of the run that saved a checkpoint, as `section.name`.

    Raises:
        UserError: its configuration cannot be read.
    """
    sections = asdict(load(folder / CONFIG_FILE))
    return {
        name if not isinstance(values, dict) else f"{name}.{key}": value
        for name, values in sections.items()
        for key, value in (values.items() if isinstance(values, dict) else [(name, values)])
    }
