"""GELU has kernels of its own, of which the backward pass's gives the MLP's first bias its gradient, where one rank
holds the matrix on CUDA.

What is slow: the backward pass of `MLP.forward` (transformer/mlp.py:155) writes the gradient of GELU's input, and then
sums it over the tokens for the bias of the first product: compiled or not, that reads two [S, B, F] tensors again.
And tanh and erf as torch and its compiler work them out keep the forward pass from the speed of a copy.
The mend: the product takes the bias as a constant, and GELU, which comes next, has a backward pass that gives its
gradient too (`gelu_kernel.py`). What is saved is what was: GELU's input, and its output by the product behind it.
Test: tests/unit/model/test_bias_gradients.py; on CUDA tests/gpu/test_bias_gradients.py.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any

import torch
from megatron.core.transformer.mlp import MLP
from torch import Tensor
from torch.nn.functional import gelu, linear

from contextlm.megatron.rewrite import SourceChanged

_stock = MLP.forward
_PIECES = (
    "intermediate_parallel, bias_parallel = self.linear_fc1(hidden_states)",
    "output, output_bias = self.linear_fc2(intermediate_parallel)",
)


def leaves_bias_gradient(layer: torch.nn.Module, is_cuda: bool) -> bool:
    """Whether what follows a layer may give its bias the gradient, in a kernel for CUDA; `model/linear.py` has such."""
    return is_cuda and getattr(layer, "is_torchs_product", False)


def linear_gelu(input_: Tensor, weight: Tensor, bias: Tensor, approximate: str) -> Tensor:
    """`gelu(linear(input_, weight, bias), approximate)`; its backward pass is for CUDA."""
    return _Gelu.apply(linear(input_, weight, bias.detach()), bias, approximate)


class _Gelu(torch.autograd.Function):
    """GELU of a sum whose last summand was `bias`."""

    @staticmethod
    def forward(ctx: Any, before: Tensor, bias: Tensor, approximate: str) -> Tensor:
        from contextlm.megatron.gelu_kernel import gelu_forward  # Triton comes with torch for CUDA

        ctx.save_for_backward(before)
        ctx.approximate = approximate
        return gelu_forward(before, approximate)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        from contextlm.megatron.gelu_kernel import gelu_backward

        (before,) = ctx.saved_tensors
        return *gelu_backward(gradient, before, ctx.approximate), None


def forward(
    self: MLP, hidden_states: Tensor, per_token_scale: Tensor | None = None, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    """[S, B, H] to [S, B, H], and the bias if it is not in them yet."""
    first, activation = self.linear_fc1, self.activation_func
    is_gelu = isinstance(activation, functools.partial) and activation.func is gelu and per_token_scale is None
    if not is_gelu or not leaves_bias_gradient(first, hidden_states.is_cuda):
        return _stock(self, hidden_states, per_token_scale, **kwargs)
    return self.linear_fc2(linear_gelu(hidden_states, first.weight, first.bias, **activation.keywords))


def install() -> None:
    """Apply the mend; calling it again changes nothing."""
    if MLP.forward is forward:
        return
    source = inspect.getsource(MLP.forward)
    if not all(piece in source for piece in _PIECES):
        raise SourceChanged("transformer.mlp.MLP.forward: is this mend still needed?")
    MLP.forward = forward
