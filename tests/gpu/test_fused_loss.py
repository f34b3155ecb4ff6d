"""The loss kernels beside the plain loss: fp32 to 1e-6, 16 bits as far as they round; whole and shared vocabularies."""

from __future__ import annotations

import pytest

from tests.distributed.pool import Pool
from tests.gpu import loss_cases

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("num_ids", [1, 515, 4096, 50257])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_losses_and_gradients_of_one_rank(gpu_pool: Pool, num_ids: int, dtype: str) -> None:
    ((loss, gradient),) = gpu_pool.run(loss_cases.distances, 1, num_ids=num_ids, dtype=dtype)
    # The plain loss is worked out in fp64 from the same logits; a gradient is rounded once, when it is written.
    assert loss < 1e-6
    assert gradient < {"float32": 1e-6, "bfloat16": 2**-8, "float16": 2**-10}[dtype]


@pytest.mark.parametrize("num_ids", [100, 515, 1000])
def test_a_shared_vocabulary(gpu_pool: Pool, num_gpus: int, num_ids: int) -> None:
    if num_gpus < 2:
        pytest.skip("two GPUs are needed")
    for loss, gradient in gpu_pool.run(loss_cases.distances, 2, num_ids=num_ids, dtype="float32"):
        assert loss < 1e-6 and gradient < 1e-6


def test_padding_gets_no_gradient_and_no_probability(gpu_pool: Pool) -> None:
    assert gpu_pool.run(loss_cases.padding_matters, 1) == [False]
