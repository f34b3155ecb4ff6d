"""Sums of gradients as one kernel for all parameters: it reads each gradient once, and reads and writes each sum once.

Triton comes with torch for CUDA.
"""

from __future__ import annotations

from collections.abc import Sequence

import triton
from torch import Tensor
from triton import language as tl

from contextlm.megatron.blocks import BLOCK, TYPES, Blocks, addresses, pointer


class SumKernel:
    """Sums and gradients that stay where they are.

    Args:
        pairs: a sum and its gradient, contiguous and of the same length; all sums of one type, all gradients too.
        blocks: of tensors of these sizes.
    """

    def __init__(self, pairs: Sequence[tuple[Tensor, Tensor]], blocks: Blocks) -> None:
        assert all(a.numel() == b.numel() for a, b in pairs)
        ((self.sum_type, self.gradient_type),) = {(a.dtype, b.dtype) for a, b in pairs}
        self.blocks = blocks
        self.addresses, self.are_aligned = addresses(pairs)

    def add_up(self, adds: bool) -> None:
        """Add the gradients to the sums, or write them there."""
        _add_up[(len(self.blocks.owner),)](
            self.addresses,
            self.blocks.sizes,
            self.blocks.owner,
            self.blocks.place,
            SUM=TYPES[self.sum_type],
            GRADIENT=TYPES[self.gradient_type],
            ADDS=adds,
            ALIGNED=self.are_aligned,
            BLOCK=BLOCK,
            num_warps=4,
        )


@triton.jit
def _add_up(
    addresses,
    sizes,
    owner,
    place,
    SUM: tl.constexpr,
    GRADIENT: tl.constexpr,
    ADDS: tl.constexpr,
    ALIGNED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One block of one parameter."""
    which = tl.load(owner + tl.program_id(0))
    first = tl.load(place + tl.program_id(0)).to(tl.int64) * BLOCK
    size = tl.load(sizes + which)
    sum_at = pointer(addresses + which * 2, SUM, ALIGNED)
    gradient_at = pointer(addresses + which * 2 + 1, GRADIENT, ALIGNED)
    at = first + tl.arange(0, BLOCK)
    # A mask, which a whole block does without, would have it moved number by number.
    if first + BLOCK <= size:
        _add_block(sum_at + at, gradient_at + at, None, SUM, ADDS)
    else:
        _add_block(sum_at + at, gradient_at + at, at < size, SUM, ADDS)


@triton.jit
def _add_block(sum_at, gradient_at, here, SUM: tl.constexpr, ADDS: tl.constexpr):
    """The numbers of one block, where they are `here`."""
    value = tl.load(gradient_at, mask=here).to(tl.float32)
    if ADDS:
        value += tl.load(sum_at, mask=here).to(tl.float32)
    tl.store(sum_at, value.to(SUM), mask=here)
