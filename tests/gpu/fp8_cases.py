"""What the processes of the tests of products in 8 bits do on a GPU; run by the pool."""

from __future__ import annotations

import math

import torch

from contextlm.config.schema import ParallelConfig
from contextlm.parallel import runtime
from tests.unit.model.dequantised import scaled_product


def distances(tokens: int, compiled: bool) -> list[float]:
    """Output and gradients beside those of dequantised numbers: how far apart, relative to their norms."""
    real = torch._scaled_mm
    with runtime.start(ParallelConfig()):
        from contextlm.model.fp8 import fp8_linear

        torch.manual_seed(1)
        sizes = (tokens, 1600), (4800, 1600), (4800,), (tokens, 4800)
        *given, gradient = (torch.randn(size, device="cuda", dtype=torch.bfloat16) for size in sizes)
        found = []
        for product in (real, scaled_product):
            torch._scaled_mm = product
            function = torch.compile(fp8_linear, fullgraph=True) if compiled and product is real else fp8_linear
            leaves = [tensor.clone().requires_grad_() for tensor in given]
            output = function(*leaves)
            output.backward(gradient * 1e-5)
            found.append([output.detach(), *(leaf.grad for leaf in leaves)])
        torch._scaled_mm = real
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
                (of_input, of_weight), nan = (
                    (leaf.grad for leaf in leaves[:2]),
                    lambda tensor: bool(tensor.isnan().all()),
                )
                shown = {
                    "input": nan(output) and nan(of_weight),
                    "weight": nan(output) and nan(of_input),
                    "gradient": nan(of_input) and nan(of_weight),
                }
                found += [] if shown[place] else [f"{number} in {place}"]
        return found
