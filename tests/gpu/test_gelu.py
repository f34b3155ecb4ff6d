"""GELU's backward pass with the bias's gradient: beside fp64, and in the whole model beside megatron-core's way."""

from __future__ import annotations

import numpy as np
import pytest

from tests.distributed.pool import Pool
from tests.gpu import compile_cases, gelu_cases
from tests.gpu.test_compilation import distances
from tests.small_configs import BACKBONES

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize(("rows", "width"), [(1, 7), (300, 515), (2051, 40), (4096, 3072)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("approximate", ["tanh", "none"])
def test_the_kernel(gpu_pool: Pool, approximate: str, dtype: str, rows: int, width: int) -> None:
    arguments = {"rows": rows, "width": width, "dtype": dtype, "approximate": approximate}
    ((gradient, bias, is_repeatable),) = gpu_pool.run(gelu_cases.distances, 1, **arguments)
    # Everything is worked out in fp32 from the same inputs, and rounded once, when it is written.
    limit = {"float32": 1e-6, "bfloat16": 2**-8, "float16": 2**-10}[dtype]
    assert gradient < limit and bias < limit and is_repeatable


@pytest.mark.parametrize("compile", ["model", "layer", "off"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_gradients_are_those_of_megatron_cores_way(gpu_pool: Pool, backbone: str, compile: str) -> None:
    def run(case, **values: object) -> dict[str, np.ndarray]:
        return gpu_pool.run(case, 1, backbone=backbone, values=values)[0]

    expected = run(gelu_cases.without_the_mend)
    assert max(distances(run(compile_cases.losses_and_gradients, compile=compile), expected)) < 1e-5
    cases = compile_cases.losses_and_gradients, gelu_cases.without_the_mend
    ours, stock = (distances(run(case, compile=compile, bf16=True), expected) for case in cases)
    assert np.mean(ours) < 1.05 * np.mean(stock), (ours, stock)


@pytest.mark.parametrize("compile", ["model", "off"])
def test_it_is_used(gpu_pool: Pool, compile: str) -> None:
    # Four layers and two of the predictor.
    assert gpu_pool.run(gelu_cases.calls, 1, values={"bf16": True, "compile": compile}) == [6]
