"""The generators' states as plain tensors of a checkpoint: nothing in them can execute code."""

from __future__ import annotations

import torch
from megatron.core.dist_checkpointing import ShardedTensor
from megatron.core.tensor_parallel import get_cuda_rng_tracker
from torch import Tensor

PREFIX = "rng."


def collect() -> dict[str, Tensor]:
    """The state of every generator of this rank, uint8, by name; names say the device, whose states differ."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    states = {f"{device}.host": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda.device"] = torch.cuda.get_rng_state()
    tracked = get_cuda_rng_tracker().get_states()
    return states | {f"{device}.tracker.{name}": state for name, state in tracked.items()}


def restore(states: dict[str, Tensor]) -> None:
    """Put back what `collect` gave; each tensor must own its storage (torch reads a view from the wrong place)."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_rng_state(states[f"{device}.host"])
    if torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda.device"])
    tracker = get_cuda_rng_tracker()
    tracker.set_states({name: states[f"{device}.tracker.{name}"] for name in tracker.get_states()})


def to_save(rank: int, world_size: int) -> dict[str, ShardedTensor]:
    """This rank's row of one [processes, bytes] tensor for each generator."""
    return {
        name: ShardedTensor.from_rank_offsets(PREFIX + name, state.cpu().unsqueeze(0), (0, rank, world_size))
        for name, state in collect().items()
    }


def to_load(rank: int, saved_world_size: int) -> dict[str, ShardedTensor]:
    """Room for the rows of all the processes that saved; every rank reads them whole."""
    return {
        name: ShardedTensor.from_rank_offsets(
            PREFIX + name, torch.empty(saved_world_size, state.numel(), dtype=torch.uint8), replica_id=rank
        )
        for name, state in collect().items()
    }
