"""AdamW as one kernel for all parameters of a group: it reads each gradient once and writes each weight once.

With the update it scales the gradient, which clips it, and writes the 16-bit weight; where the device says so, it
leaves everything as it is. Per parameter of 16-bit weights it moves 30 bytes: gradient 4, master weight and both
moments 8 each in and out, weight 2.

Triton comes with torch for CUDA; elsewhere `adamw.py` has torch's own kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import triton
from torch import Tensor
from triton import language as tl

from contextlm.megatron.blocks import BLOCK, TYPES, Blocks, addresses, pointer


class Parameter(NamedTuple):
    """The tensors of one parameter, contiguous and of equal length; master weight and moments are fp32.

    Attributes:
        gradient: in any type, the same for all parameters of a group.
        weight: what the model computes with, in 16 bits; None where that is `master` itself.
    """

    gradient: Tensor
    master: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor
    weight: Tensor | None


class AdamWKernel:
    """The update of a group of parameters whose tensors stay where they are.

    Args:
        parameters: their tensors.
        blocks: of parameters of these sizes, where they were made before.
    """

    def __init__(self, parameters: Sequence[Parameter], blocks: Blocks | None = None) -> None:
        device = parameters[0].master.device
        (self.gradient_type,) = {p.gradient.dtype for p in parameters}
        (self.weight_type,) = {None if p.weight is None else p.weight.dtype for p in parameters}
        self.blocks = blocks or Blocks([p.master.numel() for p in parameters], device)
        self.addresses, self.are_aligned = addresses(parameters)

    def update(
        self,
        step: Tensor,
        scale: Tensor,
        skip: Tensor,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
    ) -> None:
        """One update.

        Args:
            step: of this update, from 1 on; like `scale` and `skip` one number in fp32 on the device.
            scale: the gradients are multiplied by it.
            skip: where it is not 0, nothing is written.
            others: AdamW's.
        """
        _adamw[(len(self.blocks.owner),)](
            self.addresses,
            self.blocks.sizes,
            self.blocks.owner,
            self.blocks.place,
            step,
            scale,
            skip,
            lr,
            *betas,
            eps,
            weight_decay,
            GRADIENT=TYPES[self.gradient_type],
            WEIGHT=TYPES[self.weight_type],
            ALIGNED=self.are_aligned,
            BLOCK=BLOCK,
            num_warps=4,
        )


@triton.jit
def _adamw(
    addresses,
    sizes,
    owner,
    place,
    step_at,
    scale_at,
    skip_at,
    lr,
    beta1,
    beta2,
    eps,
    weight_decay,
    GRADIENT: tl.constexpr,
    WEIGHT: tl.constexpr,
    ALIGNED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One block of one parameter."""
    if tl.load(skip_at) == 0:
        which = tl.load(owner + tl.program_id(0))
        first = tl.load(place + tl.program_id(0)).to(tl.int64) * BLOCK
        size = tl.load(sizes + which)
        table = addresses + which * 5
        scale, step = tl.load(scale_at), tl.load(step_at)
        rate = lr / (1 - tl.exp2(step * tl.log2(beta1)))
        correction = tl.sqrt(1 - tl.exp2(step * tl.log2(beta2)))
        decay = 1 - lr * weight_decay
        at = first + tl.arange(0, BLOCK)
        # A mask, which a whole block does without, would have it moved number by number.
        if first + BLOCK <= size:
            _update(table, at, None, scale, rate, correction, decay, beta1, beta2, eps, GRADIENT, WEIGHT, ALIGNED)
        else:
            _update(table, at, at < size, scale, rate, correction, decay, beta1, beta2, eps, GRADIENT, WEIGHT, ALIGNED)


@triton.jit
def _update(
    table,
    at,
    here,
    scale,
    rate,
    correction,
    decay,
    beta1,
    beta2,
    eps,
    GRADIENT: tl.constexpr,
    WEIGHT: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    """The numbers `at` these places of one parameter, where they are `here`."""
    gradient_at = pointer(table, GRADIENT, ALIGNED) + at
    master_at = pointer(table + 1, tl.float32, ALIGNED) + at
    first_at = pointer(table + 2, tl.float32, ALIGNED) + at
    second_at = pointer(table + 3, tl.float32, ALIGNED) + at
    gradient = tl.load(gradient_at, mask=here).to(tl.float32) * scale
    first = tl.load(first_at, mask=here)
    first = first + (1 - beta1) * (gradient - first)
    second = beta2 * tl.load(second_at, mask=here) + (1 - beta2) * gradient * gradient
    master = tl.load(master_at, mask=here) * decay
    master -= rate * first / (tl.sqrt(second) / correction + eps)
    tl.store(first_at, first, mask=here)
    tl.store(second_at, second, mask=here)
    tl.store(master_at, master, mask=here)
    if WEIGHT is not None:
        weight_at = pointer(table + 4, WEIGHT, ALIGNED) + at
        tl.store(weight_at, master.to(WEIGHT), mask=here)
