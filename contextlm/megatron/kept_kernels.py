"""Kernels over many tensors, which know where these lie and are made anew where one has moved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

from torch import Tensor

if TYPE_CHECKING:
    from contextlm.megatron.blocks import Blocks

_KEPT = 8  # the allocator gives gradients the same few places again and again

Row = TypeVar("Row", bound=Sequence[Tensor | None])
Kernel = TypeVar("Kernel")


class KeptKernels(Generic[Row, Kernel]):
    """The kernels for those places that were seen lately.

    Args:
        make: a kernel from rows, the tensors of each parameter, and from blocks of their sizes.
        sets: of parameters, for which there are kernels at the same time.
    """

    def __init__(self, make: Callable[[Sequence[Row], Blocks], Kernel], sets: int = 1) -> None:
        self._make, self._most = make, _KEPT * sets
        self._kernels: dict[tuple[int, ...], Kernel] = {}
        self._blocks: dict[tuple[int, ...], Blocks] = {}

    def __call__(self, rows: Sequence[Row]) -> Kernel:
        """The kernel for rows whose first tensors are all there."""
        from contextlm.megatron.blocks import Blocks  # Triton comes with torch for CUDA

        places = tuple(tensor.data_ptr() for row in rows for tensor in row if tensor is not None)
        if places not in self._kernels:
            if len(self._kernels) >= self._most:
                self._kernels.clear()
            firsts = [first for first, *_ in rows if first is not None]
            sizes = tuple(first.numel() for first in firsts)
            if sizes not in self._blocks:
                self._blocks[sizes] = Blocks(sizes, firsts[0].device)
            self._kernels[places] = self._make(rows, self._blocks[sizes])
        return self._kernels[places]
