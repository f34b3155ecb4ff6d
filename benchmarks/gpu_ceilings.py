"""What the device does at best, in the same call: a copy, and a matrix product that goes on until the chip is hot."""

from __future__ import annotations

import time
from typing import NamedTuple

import torch

from gpu_clock import synchronize, window

PRODUCT_SECONDS, COPY_SECONDS = 3.0, 1.0
BURST = 50


class Ceilings(NamedTuple):
    """Sustained rates."""

    flops_per_second: float
    bytes_per_second: float

    def __str__(self) -> str:
        return f"bf16 product {self.flops_per_second / 1e12:.0f} TFLOP/s, copy {self.bytes_per_second / 1e12:.2f} TB/s"


def ceilings(device: torch.device, edge: int = 8192, seconds: float = PRODUCT_SECONDS) -> Ceilings:
    """Measure them: cubes of that edge, of which the second half of the time counts, and a copy of 16 such matrices."""
    left, right, out = (torch.randn(edge, edge, device=device).to(torch.bfloat16) for _ in range(3))
    began = time.perf_counter()
    while time.perf_counter() - began < seconds / 2:
        torch.mm(left, right, out=out)
        synchronize()
    products = window(lambda: torch.mm(left, right, out=out), seconds / 2, BURST)
    source = torch.zeros(16 * edge * edge, dtype=torch.bfloat16, device=device)
    target = torch.empty_like(source)
    copies = window(lambda: target.copy_(source), min(COPY_SECONDS, seconds), BURST)
    return Ceilings(2 * edge**3 * products, 2 * source.nbytes * copies)
