"""What only some ranks know, made known to all: signals, clocks, losses.

The hosts talk among themselves, over gloo, so no device waits for the answer and no answer waits for a device.
"""

from __future__ import annotations

import datetime
import functools
from typing import Any

import numpy as np
import torch
from torch.distributed import ProcessGroup

# Rank -> what went wrong there; empty if nothing did.
Problems = dict[int, str]


class Agreement:
    """All ranks ask it the same questions in the same order. The first one makes its group: who asks none has none.

    Args:
        timeout_minutes: until a silent peer is an error.
    """

    def __init__(self, timeout_minutes: float) -> None:
        self._timeout = datetime.timedelta(minutes=timeout_minutes)

    @functools.cached_property
    def _group(self) -> ProcessGroup | None:
        return torch.distributed.new_group(backend="gloo", timeout=self._timeout, group_desc="agreement of hosts")

    def largest(self, *numbers: float) -> list[float]:
        """The largest of what the ranks bring, place by place; never NaN.

        Raises:
            RuntimeError: a rank is gone, or silent for too long.
        """
        values = np.array(numbers, dtype=np.float64)
        torch.distributed.all_reduce(torch.from_numpy(values), torch.distributed.ReduceOp.MAX, group=self._group)
        return values.tolist()

    def problems(self, own: str) -> Problems:
        """What went wrong on any rank; `own` is empty where nothing did. One question, if nothing did anywhere."""
        (any_at_all,) = self.largest(bool(own))
        if not any_at_all:
            return {}
        found: list[str] = [""] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(found, own, group=self._group)
        return {rank: problem for rank, problem in enumerate(found) if problem}

    def gathered(self, own: Any) -> list[Any] | None:
        """What all ranks bring, by rank, on the first one; None on the others."""
        is_first = torch.distributed.get_rank() == 0
        found = [None] * torch.distributed.get_world_size() if is_first else None
        torch.distributed.gather_object(own, found, dst=0, group=self._group)
        return found
