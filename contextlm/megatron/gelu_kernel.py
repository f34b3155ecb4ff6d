"""GELU, and its backward pass with the gradient of the bias before it, each in one reading of the tensors.

The gradient of a bias is the sum over tokens of what the backward pass of GELU has just written. Compilers read both
inputs of that pass again to work it out; here each block of rows keeps its sums, which are few. Tanh and erf are worked
out with one exponential, so that the forward pass moves as many bytes a second as a copy. All is fp32 until it is
written.

Triton comes with torch for CUDA. Importing this registers the operator, through which a compiler sees the kernel and
keeps one graph; only what runs on CUDA imports it (`gelu.py`). Annotations are not postponed:
torch 2.6 takes them for the operator's types.

Shapes: N tokens, F columns, P blocks of rows.
"""

import torch
import triton
from torch.library import triton_op, wrap_triton
from triton import language as tl

_ROWS, _COLS, _WARPS = 16, 128, 4
_MAX_BLOCKS = 128
_BLOCK = 2048


@triton_op("contextlm::gelu_forward", mutates_args={})
def gelu_forward(before: torch.Tensor, approximate: str) -> torch.Tensor:
    """GELU, within 1e-6 of the largest value in fp32.

    Args:
        before: [..., F].
        approximate: "tanh" or "none", as torch says it.
    """
    before = before.contiguous()
    found = torch.empty_like(before)
    width = before.shape[-1]
    num_rows = before.numel() // width
    # Two numbers, for their product may have more than 32 bits: torch 2.11's compiler fails on such an argument.
    wrap_triton(_gelu_forward)[(triton.cdiv(num_rows * width, _BLOCK),)](
        before, found, num_rows, width, IS_TANH=approximate == "tanh", BLOCK=_BLOCK, num_warps=_WARPS
    )
    return found


@triton_op("contextlm::gelu_backward", mutates_args={})
def gelu_backward(gradient: torch.Tensor, before: torch.Tensor, approximate: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradient of GELU's input, and its sum over all dimensions but the last.

    Args:
        gradient: of GELU's output, [..., F].
        before: GELU's input, of the same shape and type.
        approximate: "tanh" or "none", as torch says it.
    """
    gradient, before = gradient.contiguous(), before.contiguous()
    width = before.shape[-1]
    num_rows = before.numel() // width
    steps = triton.cdiv(num_rows, _MAX_BLOCKS * _ROWS)
    blocks = triton.cdiv(num_rows, steps * _ROWS)
    found = torch.empty_like(before)
    sums_PF = torch.empty((blocks, width), dtype=torch.float32, device=before.device)
    wrap_triton(_gelu_backward)[(triton.cdiv(width, _COLS), blocks)](
        gradient,
        before,
        found,
        sums_PF,
        num_rows,
        width,
        IS_TANH=approximate == "tanh",
        STEPS=steps,
        ROWS=_ROWS,
        COLS=_COLS,
        num_warps=_WARPS,
    )
    return found, sums_PF.sum(0).to(before.dtype)


@triton.jit
def _gelu_forward(before, found, num_rows, width, IS_TANH: tl.constexpr, BLOCK: tl.constexpr):
    """BLOCK values."""
    size = tl.cast(num_rows, tl.int64) * width
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(before + at, mask=at < size, other=0.0).to(tl.float32)
    square = x * x
    if IS_TANH:
        value = x / (1.0 + tl.exp(-1.5957691216057308 * x * (1.0 + 0.044715 * square)))
    else:
        beyond = _beyond(x, tl.exp(-0.5 * square))
        value = x * tl.where(x < 0.0, beyond, 1.0 - beyond)
    tl.store(found + at, value.to(found.dtype.element_ty), mask=at < size)


@triton.jit
def _beyond(x, bell):
    """1 - Phi(|x|) from exp(-x^2 / 2): half of Abramowitz and Stegun's 7.1.26, whose error is below 1e-7."""
    t = 1.0 / (1.0 + 0.23164189 * tl.abs(x))
    series = ((((0.5307027145 * t - 0.7265760135) * t + 0.7107068705) * t - 0.142248368) * t + 0.127414796) * t
    return series * bell


@triton.jit
def _slope(x, IS_TANH: tl.constexpr):
    """GELU's derivative, within 1e-6: of x * sigmoid(2u), u = sqrt(2 / pi) * (x + 0.044715 x^3), or of x * Phi(x).

    1 - sigmoid is worked out without a difference of numbers that are nearly equal.
    """
    square = x * x
    if IS_TANH:
        inverse = tl.exp(tl.minimum(-1.5957691216057308 * x * (1.0 + 0.044715 * square), 80.0))
        gate = 1.0 / (1.0 + inverse)
        return gate + x * gate * (inverse * gate) * (1.5957691216057308 + 0.21406444533 * square)
    bell = tl.exp(-0.5 * square)
    beyond = _beyond(x, bell)
    return tl.where(x < 0.0, beyond, 1.0 - beyond) + x * 0.3989422804014327 * bell


@triton.jit
def _gelu_backward(
    gradient,
    before,
    found,
    sums,
    num_rows,
    width,
    IS_TANH: tl.constexpr,
    STEPS: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
):
    """STEPS times ROWS rows of COLS columns, and the sums of the columns over them."""
    columns = tl.program_id(0) * COLS + tl.arange(0, COLS)
    first = tl.program_id(1) * STEPS * ROWS
    total = tl.zeros((ROWS, COLS), dtype=tl.float32)
    for step in range(STEPS):
        rows = first + step * ROWS + tl.arange(0, ROWS)
        at = rows.to(tl.int64)[:, None] * width + columns[None, :]
        here = (rows < num_rows)[:, None] & (columns < width)[None, :]
        x = tl.load(before + at, mask=here, other=0.0).to(tl.float32)
        own = tl.load(gradient + at, mask=here, other=0.0).to(tl.float32) * _slope(x, IS_TANH)
        tl.store(found + at, own.to(found.dtype.element_ty), mask=here)
        total += own
    tl.store(sums + tl.program_id(1) * width + columns, tl.sum(total, axis=0), mask=columns < width)
