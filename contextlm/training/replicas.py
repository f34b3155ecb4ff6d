"""Weights that several ranks hold must be the same bits on all of them; this finds those that are not.

A weight outside of the matrices is held by every tensor-parallel rank, every weight by every data-parallel rank, and
the tied embedding by the first and the last pipeline stage. Each of them applies its own update, so one gradient
that was not summed over its group lets the copies drift apart without a sound.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

if TYPE_CHECKING:
    from contextlm.training.setup import Run

_ELEMENTS_AT_ONCE = 1 << 22
_FACTOR = 6364136223846793005  # odd, so that multiplying by it modulo 2^64 loses nothing


class ReplicasDiffer(RuntimeError):
    """Ranks that must hold the same weight do not."""


def check(run: Run) -> None:
    """Compare all replicated weights; collective, and every rank learns the result.

    Raises:
        ReplicasDiffer: naming each weight and the ranks whose copy differs from that of their group's first rank.
    """
    found: list[list[str]] = [[] for _ in range(run.runtime.world_size)]
    torch.distributed.all_gather_object(found, differences(run))
    if everyones := sorted({sentence for sentences in found for sentence in sentences}):
        raise ReplicasDiffer(
            f"after iteration {run.progress.iteration} copies of the same weight differ: " + "; ".join(everyones)
        )


def differences(run: Run) -> list[str]:
    """One sentence for each weight that differs within a group of this rank; collective."""
    from contextlm.training.setup import gathered_weights

    groups = run.layout.groups
    with gathered_weights(run):
        weights = [entry for part in run.language_model for entry in part.named_parameters()]
        whole = [(name, weight) for name, weight in weights if not getattr(weight, "tensor_model_parallel", False)]
        tied = [("the tied embedding", weight) for _, weight in weights if getattr(weight, "shared_embedding", False)]
        return [
            *_compare(whole, groups.tp, "tensor-parallel"),
            *_compare(weights, groups.dp_cp, "data-parallel"),
            *(_compare(tied, groups.embd, "pipeline") if tied else ()),
        ]


def _compare(weights: list[tuple[str, Tensor]], group: ProcessGroup, kind: str) -> list[str]:
    """What differs among the ranks of one group, which hold the same weights in the same order."""
    if group.size() == 1:
        return []
    mine = torch.stack([checksum(weight) for _, weight in weights])
    everyones = [torch.empty_like(mine) for _ in range(group.size())]
    torch.distributed.all_gather(everyones, mine, group=group)
    differs = torch.stack([other != everyones[0] for other in everyones]).tolist()
    ranks = torch.distributed.get_process_group_ranks(group)
    return [
        f"{name} on {kind} ranks {[rank for rank, row in zip(ranks, differs, strict=True) if row[index]]}, "
        f"not as on rank {ranks[0]}"
        for index, (name, _) in enumerate(weights)
        if any(row[index] for row in differs)
    ]


def checksum(tensor: Tensor) -> Tensor:
    """A number (int64, on the tensor's device) that any change of a bit or of the order of elements changes.

    Every element's bits count with an odd factor of their own, modulo 2^64.
    """
    integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    total = torch.zeros((), dtype=torch.int64, device=tensor.device)
    for bits in tensor.detach().contiguous().view(integers).flatten().split(_ELEMENTS_AT_ONCE):
        odd = 2 * torch.arange(len(bits), dtype=torch.int64, device=tensor.device) + 1
        total = total * _FACTOR + (bits.long() * odd).sum()
    return total
