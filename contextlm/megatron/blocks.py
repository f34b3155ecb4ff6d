"""Kernels over all parameters at once: which block of which tensor each program has, and where the tensors lie.

Triton comes with torch for CUDA.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
from torch import Tensor
from triton import language as tl

BLOCK = 1024
TYPES = {None: None, torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}


class Blocks:
    """Which block of which parameter each program has.

    Args:
        sizes: numbers in each tensor.
        device: where they are.
    """

    def __init__(self, sizes: Sequence[int], device: torch.device) -> None:
        counts = torch.tensor([-(-size // BLOCK) for size in sizes])
        owner = torch.repeat_interleave(torch.arange(len(sizes)), counts)
        first = counts.cumsum(0) - counts
        self.sizes = on_device(device, torch.tensor(sizes, dtype=torch.int64))
        self.owner = on_device(device, owner.int())
        self.place = on_device(device, (torch.arange(len(owner)) - first[owner]).int())


def addresses(rows: Sequence[Sequence[Tensor | None]]) -> tuple[Tensor, bool]:
    """Where the tensors of each parameter lie, int64 [parameters, tensors], 0 for None; whether all at multiples of 16.

    Args:
        rows: contiguous tensors, on one device.
    """
    tensors = [tensor for row in rows for tensor in row if tensor is not None]
    assert all(tensor.is_contiguous() for tensor in tensors)
    table = [[0 if tensor is None else tensor.data_ptr() for tensor in row] for row in rows]
    are_aligned = all(address % 16 == 0 for row in table for address in row)
    return on_device(tensors[0].device, torch.tensor(table, dtype=torch.int64)), are_aligned


def on_device(device: torch.device, table: Tensor) -> Tensor:
    """A copy there, for which the host does not wait."""
    return table.pin_memory().to(device, non_blocking=True)


@triton.jit
def pointer(place, TYPE: tl.constexpr, ALIGNED: tl.constexpr):
    """The address that lies at `place`; where all are multiples of 16 bytes, 16 bytes are moved at once."""
    address = tl.load(place)
    if ALIGNED:
        address = tl.multiple_of(address, 16)
    return address.to(tl.pointer_type(TYPE))
