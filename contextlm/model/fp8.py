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

from contextlm.config.fp8_checks import MULTIPLE
from contextlm.model.linear import ColumnLinear, RowLinear

_E4M3, _E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
_LARGEST_EXPONENT = {_E4M3: 7, _E5M2: 14}
"""Of numbers up to twice the power: the types end at 1.75 x 2^8 and 1.75 x 2^15."""


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
    if missing := -num_tokens % MULTIPLE:  # the gradient of the weight sums over tokens
        input_MK = pad(input_MK, (0, 0, 0, missing))
    output_MN = _Linear.apply(input_MK, weight_NK, bias_N)
    return (output_MN[:num_tokens] if missing else output_MN).view(*input_.shape[:-1], -1)


class _Linear(torch.autograd.Function):
    """Of a matrix of tokens; what it keeps has 8 bits."""

    @staticmethod
    def forward(ctx: Any, input_MK: Tensor, weight_NK: Tensor, bias_N: Tensor) -> Tensor:
        """[M, N]."""
        input_, weight = round_to(_E4M3, input_MK), round_to(_E4M3, weight_NK)
        ctx.save_for_backward(input_.columns, input_.unit, weight.columns, weight.unit)
        return torch._scaled_mm(
            input_.rows,
            weight.rows.t(),
            input_.unit,
            weight.unit,
            bias=bias_N,
            out_dtype=input_MK.dtype,
            use_fast_accum=True,
        )

    @staticmethod
    def backward(ctx: Any, gradient_MN: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of input, weight and bias; these products add in full fp32."""
        input_KM, input_unit, weight_KN, weight_unit = ctx.saved_tensors
        gradient, dtype = round_to(_E5M2, gradient_MN, with_sums=True), gradient_MN.dtype
        of_input_MK = torch._scaled_mm(gradient.rows, weight_KN.t(), gradient.unit, weight_unit, out_dtype=dtype)
        of_weight_NK = torch._scaled_mm(gradient.columns, input_KM.t(), gradient.unit, input_unit, out_dtype=dtype)
        return of_input_MK, of_weight_NK, gradient.sums


class Rounded(NamedTuple):
    """A matrix [M, K] in 8 bits.

    Attributes:
        rows, columns: its values, contiguous, [M, K] and [K, M].
        unit: what they are multiples of, an fp32 scalar; NaN if not all of the matrix is finite.
        sums: of the matrix itself over its rows, [K], if they were asked for.
    """

    rows: Tensor
    columns: Tensor
    unit: Tensor
    sums: Tensor


def round_to(dtype: torch.dtype, matrix_MK: Tensor, with_sums: bool = False) -> Rounded:
    """A matrix of 16 or 32 bits in one of 8, scaled so that its largest number is in the largest whole binade."""
    # Row by row first: whoever works out the rows, a norm, can do that on the way.
    largest = matrix_MK.abs().amax(dim=1).amax().float().clamp(min=2.0**-100)
    unit_exponent = (largest.view(torch.int32) >> 23) - _LARGEST_EXPONENT[dtype]  # biased by 127
    scale, unit = ((bits << 23).view(torch.float32) for bits in (254 - unit_exponent, unit_exponent))
    # Types without infinities swallow them.
    unit = torch.where(largest.isfinite(), unit, torch.nan)
    rows_MK, columns_KM, sums_K = _both_ways(matrix_MK, scale, dtype, with_sums)
    return Rounded(rows_MK, columns_KM, unit, sums_K)


def _both_ways(matrix: Tensor, scale: Tensor, dtype: torch.dtype, with_sums: bool) -> tuple[Tensor, Tensor, Tensor]:
    if matrix.is_cuda:
        from contextlm.model.fp8_kernel import round_both_ways  # Triton comes with torch for CUDA

        return round_both_ways(matrix, scale, dtype, with_sums)
    rows = (matrix.float() * scale).to(dtype).contiguous()
    return rows, rows.t().contiguous(), matrix.sum(0) if with_sums else matrix.new_empty(0)
