"""The compiled model on a GPU: the same numbers, no leak, one graph; and AdamW as one kernel."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.distributed.causality_cases import leaks
from tests.distributed.pool import Pool
from tests.distributed.resume_cases import train
from tests.gpu import cases, compile_cases
from tests.small_configs import BACKBONES

pytestmark = pytest.mark.gpu


def distances(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> list[float]:
    """The distance of each tensor, relative to its norm."""
    return [float(np.linalg.norm(found[name] - value) / np.linalg.norm(value)) for name, value in expected.items()]


@pytest.mark.parametrize("unit", ["model", "layer"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_losses_and_gradients_are_those_of_the_model_as_it_is(gpu_pool: Pool, backbone: str, unit: str) -> None:
    def run(**values: object) -> dict[str, np.ndarray]:
        return gpu_pool.run(compile_cases.losses_and_gradients, 1, backbone=backbone, values=values)[0]

    expected = run()
    assert max(distances(run(compile=unit), expected)) < 1e-5
    # In 16 bits both round, at different places.
    compiled, eager = (distances(run(compile=how, bf16=True), expected) for how in (unit, "off"))
    assert np.mean(compiled) < 1.3 * np.mean(eager), (compiled, eager)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_no_token_sees_a_later_one(gpu_pool: Pool, backbone: str) -> None:
    values = {"bf16": True, "seq_length": 33, "compile": "model"}
    assert gpu_pool.run(leaks, 1, backbone=backbone, values=values) == [[]]
    assert gpu_pool.run(leaks, 1, backbone=backbone, values=values, off_by_one=True) != [[]]


@pytest.mark.parametrize("unit", ["model", "layer"])
def test_nothing_is_compiled_twice(gpu_pool: Pool, unit: str) -> None:
    values = {"bf16": True, "compile": unit, "micro_batch_size": 2, "global_batch_size": 4}
    ((counts, breaks),) = gpu_pool.run(compile_cases.compilations, 1, values=values)
    assert counts[0] == counts[1] > 0 and breaks == 0, (counts, breaks)


def test_rows_of_layer_norm_are_read_once(gpu_pool: Pool) -> None:
    # A hidden size beyond 1,024, where torch's own choice is to read them twice.
    values = {"bf16": True, "compile": "model", "hidden_size": 1152, "num_attention_heads": 18}
    (kernels,) = gpu_pool.run(compile_cases.norm_kernels, 1, values=values)
    kinds = {name.split("_")[1] for name in kernels}
    assert "per" in kinds and "red" not in kinds, kernels


@pytest.mark.parametrize("values", [{}, {"use_distributed_optimizer": False}, {"compile": "model"}], ids=str)
def test_gradients_need_no_buffer(gpu_pool: Pool, values: dict) -> None:
    (with_buffer,), (without,) = (
        gpu_pool.run(compile_cases.trained, 1, values=values, buffered=buffered) for buffered in (True, False)
    )
    # Of the same gradients the norm adds up squares in another order; after each update more is rounded differently.
    assert (
        np.allclose(with_buffer["norm"][0], without["norm"][0], rtol=1e-5) and min(without["norm"]) > 0.5
    )  # and clips
    assert np.allclose(with_buffer["norm"], without["norm"], rtol=1e-2)
    assert np.allclose(with_buffer["loss"], without["loss"], rtol=1e-3)
    assert len(set(without["loss"])) == 5


@pytest.mark.parametrize("values", [{}, {"use_distributed_optimizer": False}, {"compile": "model"}], ids=str)
def test_a_run_without_a_buffer_continues(gpu_pool: Pool, tmp_path: Path, values: dict) -> None:
    given = {"bf16": True, "micro_batch_size": 2, "global_batch_size": 2, "lr": 1e-2, "train_iters": 6} | values

    def losses(folder: str, steps: int, **arguments: str) -> list[float]:
        return gpu_pool.run(train, 1, folder=str(tmp_path / folder), steps=steps, values=given, **arguments)[0]

    whole, begun = losses("whole", 6), losses("stopped", 3)
    shutil.copytree(tmp_path / "stopped", tmp_path / "forgetful")
    continued = begun + losses("stopped", 3)
    forgetful = begun + losses("forgetful", 3, forget_moments="")
    assert np.allclose(continued, whole, rtol=1e-3) and not np.allclose(forgetful, whole, rtol=1e-3)


@pytest.mark.parametrize("batch", [2, 6])
def test_kernels_that_are_launched_together_are_the_same(gpu_pool: Pool, batch: int) -> None:
    (together,), (single,) = (
        gpu_pool.run(
            compile_cases.trained,
            1,
            values={"compile": "model", "cuda_graphs": how, "global_batch_size": batch},
            buffered=False,
        )
        for how in ("on", "off")
    )
    assert together["loss"][0] == single["loss"][0] and len(set(single["loss"])) == 5
    # The backward pass has atomic sums, whose order is another one in each run.
    assert np.allclose(together["loss"] + together["evaluated"], single["loss"] + single["evaluated"], rtol=1e-4)
    assert np.allclose(together["norm"], single["norm"], rtol=1e-3)


def test_the_host_waits_for_nothing_between_log_lines(gpu_pool: Pool) -> None:
    values = {"bf16": True, "compile": "model", "global_batch_size": 4}
    assert gpu_pool.run(cases.waits, 1, values=values | {"cuda_graphs": "off"}) == [[]]
    assert gpu_pool.run(cases.waits, 1, values=values | {"cuda_graphs": "on"}, settled=6) == [[]]


@pytest.mark.parametrize("sizes", [(1, 1023, 1024, 4097, 100_000), (1024, 64, 5056, 1_000_000)], ids=["any", "aligned"])
@pytest.mark.parametrize("sum_type", ["float32", "bfloat16"])
@pytest.mark.parametrize("gradient_type", ["float32", "bfloat16", "float16"])
def test_gradients_are_added_up(gpu_pool: Pool, gradient_type: str, sum_type: str, sizes: tuple[int, ...]) -> None:
    arguments = {"gradient_type": gradient_type, "sum_type": sum_type, "sizes": sizes}
    assert gpu_pool.run(compile_cases.sums, 1, **arguments) == [True]


@pytest.mark.parametrize(("unit", "count"), [("model", 3), ("layer", 0)])
def test_gradients_of_one_graph_are_added_up_at_once(gpu_pool: Pool, unit: str, count: int) -> None:
    values = {"bf16": True, "compile": unit, "micro_batch_size": 2, "global_batch_size": 6}
    assert gpu_pool.run(compile_cases.kernels_of_sums, 1, values=values) == [count]


def test_compiled_row_products_add_no_bias(gpu_pool: Pool) -> None:
    values = {"bf16": True, "compile": "model"}
    ours, inside = (gpu_pool.run(compile_cases.biased_products, 1, values=values, inside=x)[0] for x in (False, True))
    assert inside - ours == 2 * (4 + 2), (ours, inside)  # two in each layer of decoder and predictor


@pytest.mark.parametrize("weight_type", ["bfloat16", "float16", None])
@pytest.mark.parametrize("gradient_type", ["float32", "bfloat16"])
def test_the_update_is_adamw(gpu_pool: Pool, gradient_type: str, weight_type: str | None) -> None:
    arguments = {"gradient_type": gradient_type, "weight_type": weight_type}
    ((distances, untouched),) = gpu_pool.run(compile_cases.updates, 1, **arguments)
    assert untouched and all(value < 2e-6 for value in distances.values()), distances
