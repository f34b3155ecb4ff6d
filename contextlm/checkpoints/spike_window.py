"""The window of `--skip-spikes` as plain tensors of a checkpoint; every rank has the same one."""

from __future__ import annotations

from megatron.core.dist_checkpointing import ShardedTensor
from torch import Tensor

from contextlm.training.spikes import Spikes

PREFIX = "spikes."


def to_save(spikes: Spikes | None, rank: int) -> dict[str, ShardedTensor]:
    """The window whole, to be written or filled; empty without `--skip-spikes`."""
    state = {} if spikes is None else spikes.state()
    return {
        name: ShardedTensor.from_rank_offsets(PREFIX + name, tensor, replica_id=rank) for name, tensor in state.items()
    }


def restore(spikes: Spikes | None, loaded: dict[str, Tensor]) -> None:
    """Put it back, if the run has one; it begins anew where the checkpoint has none."""
    if spikes is not None:
        spikes.restore(loaded or Spikes(spikes.values.device).state())
