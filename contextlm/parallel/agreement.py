"""What only some ranks know, made known to all: signals, clocks, losses.

The hosts talk among themselves, over gloo, so no device waits for the answer and no answer waits for a device.
"""

from __future__ import annotations

import datetime
import functools

import numpy as np
import torch
from torch.distributed import ProcessGroup


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
