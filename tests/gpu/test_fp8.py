"""Products in 8 bits on a GPU that has them: exact ones of rounded numbers, compiled once, close to bf16."""

from __future__ import annotations

import numpy as np
import pytest

from tests.distributed.pool import Pool
from tests.distributed.skip_cases import train as train_disturbed
from tests.distributed.test_skipped_updates import NAN_LOSS, NAN_NORM, UPDATED
from tests.gpu import cases, compile_cases, fp8_cases
from tests.gpu.test_compilation import distances
from tests.small_configs import BACKBONES

pytestmark = pytest.mark.gpu
EIGHT_BITS = {"bf16": True, "fp8_format": "hybrid", "fp8_recipe": "tensorwise"}


@pytest.mark.parametrize(("num_rows", "width"), [(16, 16), (130, 48), (1000, 1600), (4096, 6400)])
def test_the_kernel_rounds_as_torch_does(gpu_pool: Pool, num_rows: int, width: int) -> None:
    assert gpu_pool.run(fp8_cases.rounded_wrongly, 1, num_rows=num_rows, width=width) == [[]]


@pytest.mark.parametrize("compiled", [False, True], ids=["as it is", "compiled"])
@pytest.mark.parametrize("tokens", [4096, 1000])
def test_products_are_those_of_the_rounded_numbers(gpu_pool: Pool, tokens: int, compiled: bool) -> None:
    (found,) = gpu_pool.run(fp8_cases.distances, 1, tokens=tokens, compiled=compiled)
    # Fast sums, of the forward pass, keep 14 bits.
    assert found[0] < 1e-2 and max(found[1:]) < 4e-3, found


@pytest.mark.parametrize("compiled", [False, True], ids=["as it is", "compiled"])
def test_nothing_infinite_gets_lost(gpu_pool: Pool, compiled: bool) -> None:
    assert gpu_pool.run(fp8_cases.lost, 1, compiled=compiled) == [[]]


@pytest.mark.parametrize("unit", ["off", "layer", "model"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_losses_and_gradients_are_near_those_of_bf16(gpu_pool: Pool, backbone: str, unit: str) -> None:
    def run(**values: object) -> dict[str, np.ndarray]:
        values |= {"hidden_size": 128, "compile": unit}
        return gpu_pool.run(compile_cases.losses_and_gradients, 1, backbone=backbone, values=values)[0]

    found, expected = run(**EIGHT_BITS), run(bf16=True)
    assert 0.01 < np.mean(distances(found, expected)) < 0.3
    assert abs(found["losses"].mean() / expected["losses"].mean() - 1) < 0.02


@pytest.mark.parametrize("unit", ["layer", "model"])
def test_nothing_is_compiled_twice(gpu_pool: Pool, unit: str) -> None:
    values = EIGHT_BITS | {"compile": unit, "micro_batch_size": 2, "global_batch_size": 4}
    ((counts, breaks),) = gpu_pool.run(compile_cases.compilations, 1, values=values)
    assert counts[0] == counts[1] > 0 and breaks == 0, (counts, breaks)


@pytest.mark.parametrize("unit", ["off", "model"])
def test_the_host_waits_for_nothing(gpu_pool: Pool, unit: str) -> None:
    assert gpu_pool.run(cases.waits, 1, values=EIGHT_BITS | {"compile": unit, "global_batch_size": 4}, settled=6) == [
        []
    ]


@pytest.mark.parametrize(("what", "reason"), [("loss", NAN_LOSS), ("gradient", NAN_NORM)])
def test_a_nan_skips_the_update(gpu_pool: Pool, what: str, reason: int) -> None:
    (found,) = gpu_pool.run(train_disturbed, 1, values=EIGHT_BITS, what=what)
    assert found.codes == [UPDATED, reason, UPDATED]
    assert found.kept == [False, True, False] and found.is_finite
