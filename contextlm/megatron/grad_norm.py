"""The gradient norm and its clip without the host: no wait per parameter, and none per iteration.

What is wrong: `get_grad_norm_fp32` (optimizer/clip_grads.py:51) ends with `.item()`, and
`clip_grad_by_total_norm_fp32` (line 138) compares that number on the host: each iteration waits there until
the device is done. Without Transformer Engine and apex, `local_multi_tensor_l2_norm` (utils.py:1200) also waits for
each tensor's own norm.
The mend: both anew on torch's foreach kernels, from the device's value to the device's value.
Test: tests/unit/megatron/test_grad_norm.py, tests/distributed/test_host_syncs.py.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

import torch
from megatron.core.optimizer import clip_grads, optimizer
from torch import Tensor
from torch.distributed import ProcessGroup

from contextlm.megatron.rewrite import SourceChanged

_MENDED = {
    "get_grad_norm_fp32": "total_norm.item() ** (1.0 / norm_type)",
    "clip_grad_by_total_norm_fp32": "if clip_coeff < 1.0:",
}


def norm(
    grads_for_norm: list[Tensor] | Tensor, norm_type: float = 2, grad_stats_parallel_group: ProcessGroup | None = None
) -> Tensor:
    """The L2 norm over all elements of all tensors of all ranks of the group: a scalar, fp64, on the device."""
    assert norm_type == 2
    return total([grads_for_norm] if isinstance(grads_for_norm, Tensor) else grads_for_norm, grad_stats_parallel_group)[
        0
    ]


def total(tensors: list[Tensor], group: ProcessGroup | None) -> tuple[Tensor, Tensor]:
    """That norm, and the norms of this rank's tensors on the way to it, fp32 [tensors]."""
    device = torch.cuda.current_device()
    norms = torch.stack(torch._foreach_norm(tensors, dtype=torch.float32)) if tensors else torch.zeros(0, device=device)
    square = torch.linalg.vector_norm(norms) ** 2
    torch.distributed.all_reduce(square, group=group)
    return square.double().sqrt(), norms


def clip(
    parameters: list[Tensor] | Tensor, max_norm: float, total_norm: Tensor, use_decoupled_grad: bool = False
) -> None:
    """Scale the gradients (fp32) in place by `max_norm / total_norm` if that is below 1; a NaN scales nothing."""
    assert not use_decoupled_grad
    owners = [parameters] if isinstance(parameters, Tensor) else parameters
    gradients = [owner.grad for owner in owners if owner.grad is not None]
    assert all(gradient.dtype == torch.float32 for gradient in gradients)
    if gradients:
        torch._foreach_mul_(gradients, clip_factor(max_norm, total_norm))


def clip_factor(max_norm: float, total_norm: Tensor) -> Tensor:
    """What the clip multiplies the gradients by: a scalar, fp32, on the device."""
    return (max_norm / (total_norm + 1e-6)).nan_to_num(nan=1.0).clamp(max=1.0).float()


def install() -> None:
    """Apply the mend; calling it again changes nothing."""
    if clip_grads.get_grad_norm_fp32 is norm:
        return
    replacements: dict[str, Callable[..., Tensor | None]] = dict(zip(_MENDED, (norm, clip), strict=True))
    for name, piece in _MENDED.items():
        if inspect.getsource(getattr(clip_grads, name)).count(piece) != 1:
            raise SourceChanged(f"megatron.core.optimizer.clip_grads.{name}: does it still wait for the device?")
        setattr(clip_grads, name, replacements[name])
        setattr(optimizer, name, replacements[name])
