"""Does the run fit the memory of its devices? By the formulas of `--dry-run`, against what is there.

Weights, gradients and optimizer states are certain: where they alone are more than there is, the run is refused.
Activations are an estimate: where they are what is too much, that is a warning.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import psutil
import torch

from contextlm.analysis.fitting import usable
from contextlm.analysis.memory import rank_memory
from contextlm.byte_words import size
from contextlm.config.schema import Config
from contextlm.parallel.layout import Layout
from contextlm.parallel.runtime import Runtime

_REMEDY = (
    "try a smaller --micro-batch-size, --recompute-granularity full --recompute-method uniform --recompute-num-layers "
    "1, a larger --tensor-model-parallel-size or more processes; --dry-run shows the memory of a rank"
)
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


class Share(NamedTuple):
    """What ranks need of one memory, and what is there, in bytes.

    Attributes:
        place: the memory; ranks of a host without GPUs share one.
        certain: weights, gradients and optimizer states.
        peak: with all that comes and goes.
        there: in all.
    """

    place: str
    certain: int
    peak: int
    there: int


def shares(config: Config, vocab_size: int, process: Runtime, layout: Layout) -> list[Share]:
    """Of every memory that the run takes from; collective."""
    on_cuda = process.device.type == "cuda"
    memory = rank_memory(config, vocab_size, layout.pipeline_rank, process.world_size, on_cuda=on_cuda)
    place, there = _memory_of(process.device)
    # Without a buffer there are none at the peak; when the backward pass ends all are there, as large as the weights.
    certain = memory.weights + max(memory.gradients, memory.weights) + memory.optimizer
    found = [Share(place, certain, memory.total, there)] * process.world_size
    torch.distributed.all_gather_object(found, found[0])
    return together(found)


def together(found: Sequence[Share]) -> list[Share]:
    """One for each memory, with what all of its ranks need."""
    places = dict.fromkeys(share.place for share in found)
    return [
        Share(
            place,
            sum(share.certain for share in found if share.place == place),
            sum(share.peak for share in found if share.place == place),
            min(share.there for share in found if share.place == place),
        )
        for place in places
    ]


def problems(found: Sequence[Share]) -> list[str]:
    """What cannot fit."""
    return [
        f"{share.place}: weights, gradients and optimizer states alone need {size(share.certain)}, there are "
        f"{size(share.there)}; {_REMEDY}"
        for share in found
        if share.certain > share.there
    ]


def warnings(found: Sequence[Share]) -> list[str]:
    """What will hardly fit."""
    return [
        f"{share.place}: about {size(share.peak)} are needed with activations, {size(usable(share.there))} of "
        f"{size(share.there)} are usable; {_REMEDY}"
        for share in found
        if share.certain <= share.there and share.peak > usable(share.there)
    ]


def host_memory() -> int:
    """Bytes of memory that the processes of this host or container may have."""
    limits = [psutil.virtual_memory().total]
    for path in _CGROUP_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # "max" is no limit
            limits.append(int(Path(path).read_text()))
    return min(limits)


def _memory_of(device: torch.device) -> tuple[str, int]:
    host = socket.gethostname()
    if device.type != "cuda":
        return f"memory of {host}", host_memory()
    return f"GPU {device.index} of {host}", torch.cuda.get_device_properties(device).total_memory
