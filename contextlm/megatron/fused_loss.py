"""The loss of each token from 16-bit logits, without a second copy of them in fp32; vocabulary-parallel.

megatron-core's loss makes the logits in fp32, their exponentials and their gradients one after the other: 20 bytes for
each, written and read again. Here one kernel reads the logits and keeps three numbers a token; another overwrites them
with their gradients. What is worked out is fp32 throughout.

Triton comes with torch for CUDA; elsewhere the loss is megatron-core's (`language_model.py`).

Shapes: N tokens, V rows of this tensor-parallel rank's part of the padded vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor
from torch.distributed import ProcessGroup
from triton import language as tl

_BLOCK = 1024
_LOWEST = tl.constexpr(-3e38)


def token_losses(logits_NV: Tensor, labels_N: Tensor, first_id: int, num_ids: int, group: ProcessGroup) -> Tensor:
    """Cross entropy of each token, fp32 [N]; the backward pass leaves the gradients in `logits_NV`.

    Args:
        logits_NV: contiguous; nobody may need them afterwards.
        labels_N: ids, of the whole vocabulary.
        first_id: the id of the first row.
        num_ids: rows that are ids, perhaps none; those behind them are padding and take no part.
        group: the ranks that share the vocabulary.
    """
    return _TokenLosses.apply(logits_NV, labels_N, first_id, num_ids, group)


class _TokenLosses(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits_NV: Tensor, labels_N: Tensor, first_id: int, num_ids: int, group: ProcessGroup
    ) -> Tensor:
        assert logits_NV.is_contiguous()
        num_tokens, width = logits_NV.shape
        found = torch.empty((3, num_tokens), dtype=torch.float32, device=logits_NV.device)
        largest_N, total_N, target_N = found
        _sums[(num_tokens,)](
            logits_NV, labels_N, found, num_tokens, width, first_id, num_ids, BLOCK=_BLOCK, num_warps=4
        )
        if group.size() > 1:
            own_N = largest_N.clone()
            torch.distributed.all_reduce(largest_N, torch.distributed.ReduceOp.MAX, group=group)
            total_N *= torch.exp(own_N - largest_N)
            torch.distributed.all_reduce(found[1:], group=group)
        normalizer_N = largest_N + total_N.log()
        ctx.save_for_backward(logits_NV, labels_N, normalizer_N)
        ctx.ids = first_id, num_ids
        return normalizer_N - target_N

    @staticmethod
    def backward(ctx: Any, grad_N: Tensor) -> tuple[Tensor, None, None, None, None]:  # type: ignore[override]
        logits_NV, labels_N, normalizer_N = ctx.saved_tensors
        num_tokens, width = logits_NV.shape
        blocks = triton.cdiv(width, _BLOCK)
        _gradients[(num_tokens, blocks)](
            logits_NV, labels_N, normalizer_N, grad_N.float().contiguous(), width, *ctx.ids, BLOCK=_BLOCK, num_warps=4
        )
        return logits_NV, None, None, None, None


@triton.jit
def _sums(logits, labels, found, num_tokens, width, first_id, num_ids, BLOCK: tl.constexpr):
    """Of one token: the largest logit, the sum of exp(logit - largest), the label's logit (0 if it is not here)."""
    token = tl.program_id(0).to(tl.int64)
    row = logits + token * width
    # Each lane has numbers of its own until the end: lanes that wait for each other in every round take twice as long.
    largest_L = tl.full((BLOCK,), _LOWEST, tl.float32)
    total_L = tl.zeros((BLOCK,), tl.float32)
    whole = num_ids // BLOCK * BLOCK
    for begin in range(0, whole, BLOCK):
        block_L = tl.load(row + begin + tl.arange(0, BLOCK)).to(tl.float32)
        largest_L, total_L = _added(largest_L, total_L, block_L)
    at = whole + tl.arange(0, BLOCK)
    rest_L = tl.load(row + at, mask=at < num_ids, other=_LOWEST).to(tl.float32)
    with_rest_L, total_rest_L = _added(largest_L, total_L, rest_L)
    largest_L, total_L = tl.where(at < num_ids, with_rest_L, largest_L), tl.where(at < num_ids, total_rest_L, total_L)
    largest = tl.max(largest_L)
    total = tl.sum(total_L * tl.exp(largest_L - largest))
    label = tl.load(labels + token) - first_id
    is_here = (label >= 0) & (label < num_ids)
    target = tl.load(row + label, mask=is_here, other=0.0).to(tl.float32)
    tl.store(found + token, largest)
    tl.store(found + num_tokens + token, total)
    tl.store(found + 2 * num_tokens + token, target)


@triton.jit
def _added(largest, total, logit):
    """The largest logit and the sum of exp(logit - largest) with one more; one exponential suffices for both cases."""
    above = logit - largest
    other = tl.exp(-tl.abs(above))
    return tl.maximum(largest, logit), tl.where(above > 0, total * other + 1.0, total + other)


@triton.jit
def _gradients(logits, labels, normalizer, grad, width, first_id, num_ids, BLOCK: tl.constexpr):
    """Overwrite a block of one token's logits with (probability - is it the label) x its gradient; padding with 0."""
    token = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    row = logits + token * width
    label = tl.load(labels + token) - first_id
    block = tl.load(row + at, mask=at < num_ids, other=float("-inf")).to(tl.float32)
    probability = tl.exp(block - tl.load(normalizer + token))
    gradient = (probability - tl.where(at == label, 1.0, 0.0)) * tl.load(grad + token)
    tl.store(row + at, tl.where(at < num_ids, gradient, 0.0).to(logits.dtype.element_ty), mask=at < width)
