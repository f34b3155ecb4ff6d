"""What the processes of the tests of products in 8 bits do on a GPU; run by the pool."""

from __future__ import annotations

import math
from unittest import mock

import torch

from contextlm.config.schema import ParallelConfig
from contextlm.parallel import runtime
from tests.unit.model.dequantised import scaled_product


def rounded_wrongly(num_rows: int, width: int) -> list[str]:
    """What differs between the kernel and torch's own operations."""
    from contextlm.model.fp8_kernel import round_both_ways

    torch.manual_seed(1)
    matrix = torch.randn(num_rows, width, device="cuda").bfloat16()
    scale, found = torch.full((), 16.0, device="cuda"), []
    for dtype in (torch.float8_e4m3fn, torch.float8_e5m2):
        for with_sums in (False, True):
            rows, columns, sums = round_both_ways(matrix, scale, dtype, with_sums)
            expected = (matrix.float() * scale).to(dtype).float()
            total = matrix.double().sum(0)
            wrong = {
                "rows": not torch.equal(rows.float(), expected),
                "columns": not torch.equal(columns.float(), expected.t()) or not columns.is_contiguous(),
                "sums": bool(((sums - total).abs() > 2**-8 * total.abs() + 1e-3).any()) if with_sums else len(sums) > 0,
            }
            found += [f"{name} of {dtype}" for name, is_wrong in wrong.items() if is_wrong]
    return found


def distances(tokens: int, compiled: bool) -> list[float]:
    """Output and gradients beside those of dequantised numbers: how far apart, relative to their norms."""
    with runtime.start(ParallelConfig()):
        from contextlm.model.fp8 import fp8_linear

        torch.manual_seed(1)
        sizes = (tokens, 1600), (4800, 1600), (4800,), (tokens, 4800)
        *given, gradient = (torch.randn(size, device="cuda", dtype=torch.bfloat16) for size in sizes)
        found = []
        for product in (torch._scaled_mm, scaled_product):
            mine = product is not scaled_product
            function = torch.compile(fp8_linear, fullgraph=True) if compiled and mine else fp8_linear
            leaves = [tensor.clone().requires_grad_() for tensor in given]
            with mock.patch.object(torch, "_scaled_mm", product):
                output = function(*leaves)
                output.backward(gradient * 1e-5)
            found.append([output.detach(), *(leaf.grad for leaf in leaves)])
        return [float((a.float() - b.float()).norm() / b.float().norm()) for a, b in zip(*found, strict=True)]


def lost(compiled: bool) -> list[str]:
    """Where a number that is not finite does not show in all that it was multiplied into."""
    with runtime.start(ParallelConfig()):
        from contextlm.model.fp8 import fp8_linear

        function, found = (torch.compile(fp8_linear, fullgraph=True) if compiled else fp8_linear), []
        for number in (math.inf, -math.inf, math.nan):
            for place in ("input", "weight", "gradient"):
                sizes = {"input": (64, 128), "weight": (256, 128), "bias": (256,), "gradient": (64, 256)}
                drawn = {name: torch.randn(size, device="cuda").bfloat16() for name, size in sizes.items()}
                drawn[place][3, 5] = number
                gradient = drawn.pop("gradient")
                leaves = [tensor.requires_grad_() for tensor in drawn.values()]
                output = function(*leaves)
                output.backward(gradient)
                of_input, of_weight, _ = (leaf.grad for leaf in leaves)
                reached = {
                    "input": (output, of_weight),
                    "weight": (output, of_input),
                    "gradient": (of_input, of_weight),
                }
                if not all(bool(tensor.isnan().all()) for tensor in reached[place]):
                    found.append(f"{number} in {place}")
        return found
