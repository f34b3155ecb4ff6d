"""The gradient norm and its clip without a host sync per parameter.

What is wrong: without Transformer Engine and apex `local_multi_tensor_l2_norm` (utils.py:1200) takes the
norm of every tensor on its own and builds a tensor from those scalars, which on a GPU waits for each of
them; `local_multi_tensor_scale` (utils.py:1212) scales tensor by tensor.
The mend: torch's foreach kernels, norm kept on the device.
Test: tests/unit/megatron/test_grad_norm.py.
"""

from __future__ import annotations

from typing import Any

import torch
from megatron.core import utils
from megatron.core.optimizer import clip_grads


def l2_norm(
    chunk_size: int, noop_flag: Any, tensor_lists: list[list[torch.Tensor]], per_tensor: bool, *args: Any
) -> tuple[torch.Tensor, None]:
    """The L2 norm over all elements of `tensor_lists[0]`, shape [1], on their device."""
    norms = torch._foreach_norm(tensor_lists[0])
    return torch.linalg.vector_norm(torch.stack(norms)).reshape(1), None


def scale(chunk_size: int, noop_flag: Any, tensor_lists: list[list[torch.Tensor]], factor: float) -> None:
    """Multiply each tensor by `factor`, in place (megatron-core gives the same list as source and target)."""
    sources, targets = tensor_lists
    assert all(a is b for a, b in zip(sources, targets, strict=True))
    torch._foreach_mul_(targets, factor)


def install() -> None:
    """Apply the mend; with Transformer Engine or apex present, nothing changes."""
    if clip_grads.l2_norm_impl is utils.local_multi_tensor_l2_norm:
        clip_grads.l2_norm_impl = l2_norm
        clip_grads.multi_tensor_scale_impl = scale
