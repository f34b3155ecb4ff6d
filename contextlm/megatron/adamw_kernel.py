"""AdamW as one kernel for all parameters of a group: it reads each gradient once and writes each weight once.

With the update it clips the gradient, writes the 16-bit weight, and leaves everything as it is where the gradient norm
is not finite. Per parameter of 16-bit weights it moves 30 bytes: gradient 4, and master weight and both moments 8 each
in and out, weight 2.

Triton comes with torch for CUDA; elsewhere `adamw.py` has torch's own kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
from torch import Tensor
from triton import language as tl

_BLOCK = 2048


class Parameter(NamedTuple):
    """The tensors of one parameter, contiguous and of equal length; all fp32 but `weight`.

    Attributes:
        weight: what the model computes with, in 16 bits; None where that is `master` itself.
    """

    gradient: Tensor
    master: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor
    weight: Tensor | None


class AdamWKernel:
    """The update of a group of parameters whose tensors stay where they are."""

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        device = parameters[0].master.device
        self.weight_type = next((p.weight.dtype for p in parameters if p.weight is not None), None)
        sizes = [p.master.numel() for p in parameters]
        blocks = [-(-size // _BLOCK) for size in sizes]
        self.addresses = torch.tensor([_addresses(p) for p in parameters], dtype=torch.int64).to(device)
        self.sizes = torch.tensor(sizes, dtype=torch.int64).to(device)
        owner = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(blocks))
        first = torch.tensor(blocks).cumsum(0) - torch.tensor(blocks)
        self.owner = owner.to(device, torch.int32)
        self.place = (torch.arange(len(owner)) - first[owner]).to(device, torch.int32)

    def update(
        self,
        step: Tensor,
        norm: Tensor,
        max_norm: float,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
    ) -> None:
        """One update.

        Args:
            step: of this update, from 1 on; fp32, on the device, as `norm` is.
            norm: of all gradients; where it is not finite, nothing is written.
            max_norm: gradients are scaled to it if `norm` is larger; 0 leaves them.
            others: AdamW's.
        """
        _adamw[(len(self.owner),)](
            self.addresses,
            self.sizes,
            self.owner,
            self.place,
            step,
            norm,
            max_norm,
            lr,
            *betas,
            eps,
            weight_decay,
            WEIGHT=_TYPES[self.weight_type],
            BLOCK=_BLOCK,
        )


def _addresses(parameter: Parameter) -> list[int]:
    tensors = parameter.gradient, parameter.master, parameter.exp_avg, parameter.exp_avg_sq, parameter.weight
    assert all(tensor is None or tensor.is_contiguous() for tensor in tensors)
    return [0 if tensor is None else tensor.data_ptr() for tensor in tensors]


_TYPES = {None: None, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}


@triton.jit
def _adamw(
    addresses,
    sizes,
    owner,
    place,
    step_at,
    norm_at,
    max_norm,
    lr,
    beta1,
    beta2,
    eps,
    weight_decay,
    WEIGHT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One block of one parameter."""
    which = tl.load(owner + tl.program_id(0))
    at = tl.load(place + tl.program_id(0)).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    norm = tl.load(norm_at).to(tl.float32)
    # A NaN equals nothing, an infinity is no smaller than the largest number.
    here = (at < tl.load(sizes + which)) & (norm == norm) & (norm < float("inf"))
    table = addresses + which * 5
    gradient_at = tl.load(table).to(tl.pointer_type(tl.float32)) + at
    master_at = tl.load(table + 1).to(tl.pointer_type(tl.float32)) + at
    first_at = tl.load(table + 2).to(tl.pointer_type(tl.float32)) + at
    second_at = tl.load(table + 3).to(tl.pointer_type(tl.float32)) + at
    scale = 1.0
    if max_norm > 0:
        scale = tl.minimum(max_norm / (norm + 1e-6), 1.0)
    gradient = tl.load(gradient_at, mask=here) * scale
    first = tl.load(first_at, mask=here)
    first = first + (1 - beta1) * (gradient - first)
    second = beta2 * tl.load(second_at, mask=here) + (1 - beta2) * gradient * gradient
    step = tl.load(step_at).to(tl.float32)
    correction1 = 1 - tl.exp2(step * tl.log2(beta1))
    correction2 = 1 - tl.exp2(step * tl.log2(beta2))
    master = tl.load(master_at, mask=here) * (1 - lr * weight_decay)
    master -= lr / correction1 * first / (tl.sqrt(second) / tl.sqrt(correction2) + eps)
    tl.store(first_at, first, mask=here)
    tl.store(second_at, second, mask=here)
    tl.store(master_at, master, mask=here)
    if WEIGHT is not None:
        weight_at = tl.load(table + 4).to(tl.pointer_type(WEIGHT)) + at
        tl.store(weight_at, master.to(WEIGHT), mask=here)
