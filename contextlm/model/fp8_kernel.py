"""A matrix in 8 bits twice, as rows and as columns, and the sums of its columns, in one reading.

Products of 8-bit numbers want both operands along the dimension that is summed over, and of the three products of a
layer one sums over its tokens. A compiler would write the transposed copy byte by byte, between the rows of whatever
it fuses it with. Here a tile is read once and written both ways; the sums are the gradient of a bias.

Triton comes with torch for CUDA. Importing this registers the operator, through which a compiler sees the kernel and
keeps one graph; only what runs on CUDA imports it (`fp8.py`). Annotations are not postponed:
torch 2.6 takes them for the operator's types.

Shapes: M rows, K columns, P blocks of rows.
"""

import torch
import triton
from torch.library import triton_op, wrap_triton
from triton import language as tl

_ROWS, _COLS, _WARPS = 128, 64, 4


@triton_op("contextlm::round_both_ways", mutates_args={})
def round_both_ways(
    matrix: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype, with_sums: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`matrix * scale` as `dtype`, [M, K] and [K, M]; and the sum of `matrix` over its rows, [K], if asked for.

    Args:
        matrix: [M, K].
        scale: fp32, of one element.
    """
    matrix = matrix.contiguous()
    num_rows, width = matrix.shape
    blocks = triton.cdiv(num_rows, _ROWS)
    rows_MK = torch.empty((num_rows, width), dtype=dtype, device=matrix.device)
    columns_KM = torch.empty((width, num_rows), dtype=dtype, device=matrix.device)
    sums_PK = torch.empty((blocks, width if with_sums else 0), dtype=torch.float32, device=matrix.device)
    wrap_triton(_round_both_ways)[(triton.cdiv(width, _COLS), blocks)](
        matrix,
        scale,
        rows_MK,
        columns_KM,
        sums_PK,
        num_rows,
        width,
        WITH_SUMS=with_sums,
        ROWS=_ROWS,
        COLS=_COLS,
        num_warps=_WARPS,
    )
    return rows_MK, columns_KM, sums_PK.sum(0).to(matrix.dtype)


@triton.jit
def _round_both_ways(
    matrix,
    scale,
    rows,
    columns,
    sums,
    num_rows,
    width,
    WITH_SUMS: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
):
    """A tile of ROWS x COLS."""
    row = (tl.program_id(1) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    column = (tl.program_id(0) * COLS + tl.arange(0, COLS)).to(tl.int64)
    here = (row < num_rows)[:, None] & (column < width)[None, :]
    at = row[:, None] * width + column[None, :]
    tile = tl.load(matrix + at, mask=here, other=0.0).to(tl.float32)
    rounded = (tile * tl.load(scale)).to(rows.dtype.element_ty)
    tl.store(rows + at, rounded, mask=here)
    tl.store(columns + column[:, None] * num_rows + row[None, :], tl.trans(rounded), mask=tl.trans(here))
    if WITH_SUMS:
        tl.store(sums + tl.program_id(1) * width + column, tl.sum(tile, axis=0), mask=column < width)
