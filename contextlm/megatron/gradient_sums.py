"""The gradients of a micro-batch are added to the buffer by one kernel, where they all come at once.

What is slow: the hook of each parameter (distributed/distributed_data_parallel.py:433) adds its 16-bit gradient to the
fp32 buffer by itself. A model that is compiled as one graph gives out all gradients together: hundreds of small kernels
follow then, and torch's addition of two types moves numbers one by one.
The mend: hooks hand the gradients over, and one kernel adds them when the backward pass has ended (`sum_kernel.py`).
Test: tests/distributed/test_gradient_buffers.py; on CUDA tests/gpu/test_compilation.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from contextlm.megatron.kept_kernels import KeptKernels

if TYPE_CHECKING:
    from contextlm.megatron.blocks import Blocks
    from contextlm.megatron.sum_kernel import SumKernel

AddUp = Callable[[Sequence[Tensor], Sequence[Tensor], bool], None]
"""To sums, from gradients of the same sizes; True adds, False replaces."""


class GradientSums:
    """Adds up the gradients of one `DistributedDataParallel`, which knows it as `gradient_sums`.

    Args:
        add_up: with one kernel on CUDA, unless another way is given.
    """

    def __init__(self, add_up: AddUp | None = None) -> None:
        self._add_up = add_up or _Kernels()
        self._waiting: dict[Any, Tensor] = {}

    def forget(self) -> None:
        """What waits: its backward pass came to no end."""
        self._waiting.clear()

    def take(self, parameter: Any) -> None:
        """Of a parameter whose gradient is there, once in a backward pass."""
        assert parameter not in self._waiting, "a backward pass inside another shares a weight with it"
        if not self._waiting:
            torch.autograd.Variable._execution_engine.queue_callback(self._flush)
        self._waiting[parameter] = parameter.grad

    @torch.no_grad()
    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for adds in (False, True):
            some = [(p, gradient) for p, gradient in waiting.items() if getattr(p, "main_grad_is_stale", False) != adds]
            if some:
                self._add_up([p.main_grad for p, _ in some], [gradient for _, gradient in some], adds)
        for parameter in waiting:
            parameter.main_grad_is_stale = False


class _Kernels:
    """Adds up with the kernel for the places where sums and gradients lie."""

    def __init__(self) -> None:
        self._kernels = KeptKernels(_sum_kernel)

    def __call__(self, sums: Sequence[Tensor], gradients: Sequence[Tensor], adds: bool) -> None:
        gradients = [gradient.contiguous() for gradient in gradients]
        self._kernels(list(zip(sums, gradients, strict=True))).add_up(adds)


def _sum_kernel(pairs: Sequence[tuple[Tensor, Tensor]], blocks: Blocks) -> SumKernel:
    from contextlm.megatron.sum_kernel import SumKernel  # Triton comes with torch for CUDA

    return SumKernel(pairs, blocks)
