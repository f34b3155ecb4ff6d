"""What the processes of the tests of the kernels that give biases their gradients do; run by the pool."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from contextlm.config.sections.parallel import ParallelConfig
from contextlm.parallel import runtime
from tests.gpu.compile_cases import losses_and_gradients


def distance(found: Tensor, wanted: Tensor) -> float:
    """The largest, relative to the largest value."""
    return float((found.double().cpu() - wanted).abs().max() / wanted.abs().max())


def gelu_distances(rows: int, width: int, dtype: str, approximate: str) -> tuple[list[float], bool]:
    """How far GELU, the gradients of its input and of the bias are from fp64; whether these are repeatable."""
    with runtime.start(ParallelConfig()):
        from contextlm.megatron.gelu_kernel import gelu_backward, gelu_forward

        generator = torch.Generator().manual_seed(1)
        before, gradient = torch.randn(2, rows, width, generator=generator).to(getattr(torch, dtype))
        before = 4 * before  # both tails
        exact = before.double().requires_grad_()
        wanted = torch.nn.functional.gelu(exact, approximate=approximate)
        wanted.backward(gradient.double())
        assert exact.grad is not None
        given = gradient.cuda(), before.cuda(), approximate
        found, again = gelu_backward(*given), gelu_backward(*given)
        is_repeatable = all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
        forward = distance(gelu_forward(before.cuda(), approximate), wanted.detach())
        return [forward, distance(found[0], exact.grad), distance(found[1], exact.grad.sum(0))], is_repeatable


def last_rows_of_many(width: int) -> tuple[float, int]:
    """How far compiled GELU is from fp64 in the last rows of a tensor, and its size, which is more than 2^31."""
    with runtime.start(ParallelConfig()):
        from contextlm.megatron.gelu_kernel import gelu_forward

        before = torch.zeros(2**31 // width + 3, width, dtype=torch.bfloat16, device="cuda")
        before[-5:].normal_()
        found = torch.compile(lambda before: gelu_forward(before, "tanh"))(before)
        exact = before[-5:].double().cpu()
        return distance(found[-5:], torch.nn.functional.gelu(exact, approximate="tanh")), before.numel()


def calls(values: dict[str, Any]) -> int:
    """How often the kernels ran in a forward and backward pass."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        losses_and_gradients("gpt2", values)
    return sum(event.count for event in profile.key_averages() if event.key.startswith("_gelu_"))


def stock_losses_and_gradients(backbone: str, values: dict[str, Any]) -> dict[str, np.ndarray]:
    """`losses_and_gradients` where biases get their gradients from their products."""
    from contextlm.megatron import gelu

    with mock.patch.object(gelu, "leaves_bias_gradient", lambda layer, is_cuda: False):
        return losses_and_gradients(backbone, values)
