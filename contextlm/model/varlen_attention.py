"""Attention within documents by torch's kernel for sequences of any length, which skips what a mask would hide.

FlashAttention's, on CUDA in 16 bits and without dropout, where torch has it (2.13 does); elsewhere a mask serves.

Shapes: S tokens, B batch, N heads of this rank, D head dimension.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from contextlm.model.documents import Documents


def is_offered(query_SBND: Tensor, documents: Documents, dropout: float) -> bool:
    """Whether the kernel can attend."""
    return (
        documents.bounds is not None
        and dropout == 0
        and query_SBND.dtype in (torch.bfloat16, torch.float16)
        and query_SBND.shape[-1] <= 256
        and query_SBND.shape[-1] % 8 == 0
        and torch.cuda.get_device_capability(query_SBND.device) >= (8, 0)
        and kernel() is not None
    )


def attend(
    query_SBND: Tensor, key_SBND: Tensor, value_SBND: Tensor, documents: Documents, scale: float | None
) -> Tensor:
    """Attend causally within each document, [S, B, N D]."""
    length, batch_size = query_SBND.shape[:2]
    attention = kernel()
    assert attention is not None
    output_TND = attention(
        *(x_SBND.transpose(0, 1).flatten(0, 1) for x_SBND in (query_SBND, key_SBND, value_SBND)),
        documents.bounds,
        documents.bounds,
        length,
        length,
        scale=scale,
        window_size=(-1, 0),  # causal
    )
    return output_TND.reshape(batch_size, length, -1).transpose(0, 1)


@functools.cache
def kernel() -> Callable[..., Any] | None:
    """torch's `varlen_attn`; None where it is missing, or older than the arguments that it is called with."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return varlen_attn if "window_size" in inspect.signature(varlen_attn).parameters else None
