"""Linear layers whose products are of 8-bit numbers: `--fp8-format hybrid --fp8-recipe tensorwise`.

Input, weight and output gradient of a layer are rounded just before its three products, with one scale for each tensor
that follows from its largest value at that moment: nothing of it is kept from one iteration to the next, and weights,
master weights, moments and checkpoints are those of bf16. "hybrid" (Micikevicius et al., 2022): inputs and weights are
e4m3, 4 bits of significand in all, gradients e5m2, 3 bits over a wider range.

Scales are powers of two. A value then rounds to the same number whatever the largest value of its tensor is, unless it
lies 13 binades or more below it: other samples of the batch, later tokens and the layout all but leave it alone.

Shapes: M tokens (or chunks), K inputs, N outputs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from contextlm.model.linear import ColumnLinear, RowLinear

_E4M3, _E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
_LARGEST_EXPONENT = {_E4M3: 7, _E5M2: 14}
"""Of numbers up to twice the power: the types end at 1.75 x 2^8 and 1.75 x 2^15."""
_MULTIPLE = 16
"""What the sizes that a product sums over, and its number of outputs, are multiples of."""


class Fp8ColumnLinear(ColumnLinear):
    """One tensor-parallel rank has all of the outputs."""

    def forward(
        self, input_: Tensor, weight: Tensor | None = None, runtime_gather_output: bool | None = None
    ) -> tuple[Tensor, None]:
        """[S, B, inputs] to [S, B, outputs], bias included."""
        return fp8_linear(input_, self.weight if weight is None else weight, self.bias), None


class Fp8RowLinear(RowLinear):
    """One tensor-parallel rank has all of the inputs."""

    def forward(self, input_: Tensor) -> tuple[Tensor, None]:
        """[S, B, inputs] to [S, B, outputs], bias included."""
        return fp8_linear(input_, self.weight, self.bias), None


def fp8_linear(input_: Tensor, weight_NK: Tensor, bias_N: Tensor) -> Tensor:
    """`torch.nn.functional.linear` with products of 8-bit numbers, forward and backward.

    Where a number is NaN or infinite, all that its tensor is multiplied into is NaN.

    Args:
        input_: [..., K], bf16; K and N are multiples of 16.
    """
    input_MK = input_.flatten(0, -2)
    num_tokens = len(input_MK)
    if missing := -num_tokens % _MULTIPLE:  # the gradient of the weight sums over tokens
        input_MK = pad(input_MK, (0, 0, 0, missing))
    output_MN = _Linear.apply(input_MK, weight_NK, bias_N)
    return (output_MN[:num_tokens] if missing else output_MN).view(*input_.shape[:-1], -1)


class _Linear(torch.autograd.Function):
    """Of a matrix of tokens; what it keeps of them has 8 bits."""

    @staticmethod
    def forward(ctx: Any, input_MK: Tensor, weight_NK: Tensor, bias_N: Tensor) -> Tensor:
        """[M, N]."""
        rounded, weight = round_to(_E4M3, input_MK), round_to(_E4M3, weight_NK)
        ctx.save_for_backward(rounded.values, rounded.unit, weight_NK)
        return torch._scaled_mm(
            rounded.values,
            weight.values.t(),
            rounded.unit,
            weight.unit,
            bias=bias_N,
            out_dtype=input_MK.dtype,
            use_fast_accum=True,
        )

    @staticmethod
    def backward(ctx: Any, gradient_MN: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of input, weight and bias."""
        values_MK, unit, weight_NK = ctx.saved_tensors
        gradient, weight = round_to(_E5M2, gradient_MN), round_to(_E4M3, weight_NK)
        of_input_MK = _product(gradient, weight, gradient_MN.dtype)
        of_weight_NK = _product(gradient.t(), Rounded(values_MK, unit), gradient_MN.dtype)
        return of_input_MK, of_weight_NK, gradient_MN.sum(0)


class Rounded(NamedTuple):
    """A matrix in 8 bits: `values`, row after row, times `unit`, an fp32 scalar; NaN if not all of it is finite."""

    values: Tensor
    unit: Tensor

    def t(self) -> Rounded:
        """Transposed."""
        return Rounded(self.values.t().contiguous(), self.unit)


def round_to(dtype: torch.dtype, matrix: Tensor) -> Rounded:
    """A matrix of 16 or 32 bits in one of 8, scaled so that its largest number is in the largest whole binade."""
    # Row by row first: whoever works out the rows, a norm, can do that on the way.
    largest = matrix.abs().amax(dim=1).amax().float().clamp(min=2.0**-100)
    unit_exponent = (largest.view(torch.int32) >> 23) - _LARGEST_EXPONENT[dtype]  # biased by 127
    scale, unit = ((bits << 23).view(torch.float32) for bits in (254 - unit_exponent, unit_exponent))
    # Types without infinities swallow them.
    unit = torch.where(largest.isfinite(), unit, torch.nan)
    return Rounded((matrix.float() * scale).to(dtype).contiguous(), unit)


def _product(left: Rounded, right: Rounded, dtype: torch.dtype) -> Tensor:
    """left @ right; the kernel wants the right matrix column after column, and here adds in full fp32."""
    return torch._scaled_mm(
        left.values, right.values.t().contiguous().t(), left.unit, right.unit, out_dtype=dtype, use_fast_accum=False
    )
