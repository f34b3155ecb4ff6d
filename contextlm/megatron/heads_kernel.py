"""The gradients of queries, keys and values become one tensor, and the gradient of the bias before it, in one reading.

A product gives all three at once, so its backward pass wants their gradients in one tensor, and their sum over the
tokens for its bias. Compilers write that tensor and read it again; here each block of rows keeps its sums.

Triton comes with torch for CUDA. Importing this registers the operator, through which a compiler sees the kernel and
keeps one graph; only what runs on CUDA imports it (`self_attention.py`). Annotations are not postponed:
torch 2.6 takes them for the operator's types.

Shapes: S tokens, B batch, N heads, D head dimension, P blocks of rows.
"""

import torch
import triton
from torch.library import triton_op, wrap_triton
from triton import language as tl

_ROWS, _COLS, _WARPS = 16, 128, 4
_MAX_BLOCKS = 128


@triton_op("contextlm::join_heads", mutates_args={})
def join_heads(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """[S, B, N, D] three times to [S, B, N x 3 x D], and its sum over S and B."""
    if query.stride(3) != 1 or not query.stride() == key.stride() == value.stride():
        query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
    length, batch, heads, dimension = query.shape
    width, num_rows = heads * dimension, length * batch
    steps = triton.cdiv(num_rows, _MAX_BLOCKS * _ROWS)
    blocks = triton.cdiv(num_rows, steps * _ROWS)
    joined = torch.empty((length, batch, 3 * width), dtype=query.dtype, device=query.device)
    sums_PF = torch.empty((blocks, 3 * width), dtype=torch.float32, device=query.device)
    wrap_triton(_join_heads)[(triton.cdiv(width, _COLS), 3, blocks)](
        query,
        key,
        value,
        joined,
        sums_PF,
        num_rows,
        batch,
        width,
        query.stride(0),
        query.stride(1),
        query.stride(2),
        HEAD=dimension,
        STEPS=steps,
        ROWS=_ROWS,
        COLS=_COLS,
        num_warps=_WARPS,
    )
    return joined, sums_PF.sum(0).to(query.dtype)


@triton.jit
def _join_heads(
    query,
    key,
    value,
    joined,
    sums,
    num_rows,
    batch,
    width,
    token_stride,
    batch_stride,
    head_stride,
    HEAD: tl.constexpr,
    STEPS: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
):
    """STEPS times ROWS rows of COLS columns of one of the three, and the sums of the columns over them."""
    which = tl.program_id(1)
    source = query
    if which == 1:
        source = key
    if which == 2:
        source = value
    columns = tl.program_id(0) * COLS + tl.arange(0, COLS)
    head, place = columns // HEAD, columns % HEAD
    target = (head * 3 + which) * HEAD + place
    first = tl.program_id(2) * STEPS * ROWS
    total = tl.zeros((ROWS, COLS), dtype=tl.float32)
    for step in range(STEPS):
        rows = first + step * ROWS + tl.arange(0, ROWS)
        here = (rows < num_rows)[:, None] & (columns < width)[None, :]
        begin = (rows // batch).to(tl.int64) * token_stride + (rows % batch).to(tl.int64) * batch_stride
        block = tl.load(source + begin[:, None] + (head * head_stride + place)[None, :], mask=here, other=0.0)
        tl.store(joined + rows.to(tl.int64)[:, None] * (3 * width) + target[None, :], block, mask=here)
        total += block.to(tl.float32)
    tl.store(sums + tl.program_id(2) * (3 * width) + target, tl.sum(total, axis=0), mask=columns < width)
