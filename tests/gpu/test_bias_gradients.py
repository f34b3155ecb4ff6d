"""GELU's kernels, which give biases their gradients: beside fp64, and in the whole model beside what products give."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.distributed.pool import Pool
from tests.gpu import bias_cases, compile_cases
from tests.gpu.test_compilation import distances
from tests.small_configs import BACKBONES

pytestmark = pytest.mark.gpu

# Everything is worked out in fp32 from the same inputs, and rounded once, when it is written.
LIMITS = {"float32": 1e-6, "bfloat16": 2**-8, "float16": 2**-10}


@pytest.mark.parametrize(("rows", "width"), [(1, 7), (300, 515), (2051, 40), (4096, 3072)])
@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("approximate", ["tanh", "none"])
def test_gelu(gpu_pool: Pool, approximate: str, dtype: str, rows: int, width: int) -> None:
    arguments = {"rows": rows, "width": width, "dtype": dtype, "approximate": approximate}
    ((distances, is_repeatable),) = gpu_pool.run(bias_cases.gelu_distances, 1, **arguments)
    assert max(distances) < LIMITS[dtype] and is_repeatable, distances


def test_gelu_of_more_numbers_than_32_bits_count(gpu_pool: Pool) -> None:
    """As the largest micro-batch of a small model has."""
    ((distance, size),) = gpu_pool.run(bias_cases.last_rows_of_many, 1, width=4096)
    assert size > 2**31 and distance < LIMITS["bfloat16"]


@pytest.mark.parametrize("unit", ["model", "layer", "off"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_model_has_the_same_gradients(gpu_pool: Pool, backbone: str, unit: str) -> None:
    def run(case: Callable, **values: object) -> dict[str, np.ndarray]:
        return gpu_pool.run(case, 1, backbone=backbone, values=values)[0]

    ours, stock = compile_cases.losses_and_gradients, bias_cases.stock_losses_and_gradients
    expected = run(stock)
    assert max(distances(run(ours, compile=unit), expected)) < 1e-5
    found, peer = (distances(run(case, compile=unit, bf16=True), expected) for case in (ours, stock))
    assert np.mean(found) < 1.05 * np.mean(peer), (found, peer)


@pytest.mark.parametrize("unit", ["model", "off"])
def test_they_are_used(gpu_pool: Pool, unit: str) -> None:
    # In four layers and the two of the predictor, forward and backward.
    found = gpu_pool.run(bias_cases.calls, 1, values={"bf16": True, "compile": unit})
    assert found == [12]
