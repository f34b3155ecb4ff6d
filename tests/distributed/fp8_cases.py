"""Training with products in 8 bits on a CPU; run by the pool."""

from __future__ import annotations

from typing import Any
from unittest import mock

import torch

from tests.distributed import memory_cases, resume_cases, skip_cases
from tests.unit.model.dequantised import scaled_product

EIGHT_BITS = {"bf16": True, "fp8_format": "hybrid", "fp8_recipe": "tensorwise"}


def train(folder: str | None, steps: int, values: dict[str, Any]) -> list[float] | None:
    """The losses of some iterations, from where the checkpoint in a folder is."""
    with mock.patch.object(torch, "_scaled_mm", scaled_product):
        return resume_cases.train(folder, steps, values)


def kept(backbone: str, values: dict[str, Any]) -> tuple[int, int]:
    """Bytes that a forward pass keeps, and the most at once until its backward pass ends."""
    with mock.patch.object(torch, "_scaled_mm", scaled_product):
        return memory_cases.forward_and_backward(backbone, values)


def train_disturbed(what: str) -> skip_cases.Trained:
    """Three iterations, in the second of which something becomes NaN."""
    with mock.patch.object(torch, "_scaled_mm", scaled_product):
        return skip_cases.train(EIGHT_BITS, what)
