"""Weights that several ranks hold stay the same bits on all of them, and a difference is found and named."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from contextlm.training.replicas import checksum
from tests.distributed.layout_cases import save_random_weights
from tests.distributed.layouts import LAYOUTS
from tests.distributed.matrix import (
    FACTORS,
    MAX_PROCESSES,
    NUM_LAYERS,
    OPTIMIZERS,
    PIPELINES,
    RECOMPUTES,
    TENSORS,
    processes,
)
from tests.distributed.pool import Pool
from tests.distributed.replica_cases import check_in_the_loop, drift

BATCH = {"micro_batch_size": 1, "global_batch_size": 4, "seq_length": 68}
DROPOUT = {"hidden_dropout": 0.1, "attention_dropout": 0.1}
GATHER = OPTIMIZERS["distributed, overlap and gather"]
# What the layouts of the matrix have beside them, in turn.
BESIDE = (
    DROPOUT | GATHER,
    {"context_fusion": "norm_add"},
    {"bf16": True},
    DROPOUT,
    GATHER,
    {"fp16": True, "initial_loss_scale": 16.0},
    OPTIMIZERS["plain, overlap"],
    RECOMPUTES["uniform 2"],
)
Layout = tuple[str, str, int]


def long_runs() -> dict[Layout, dict[str, Any]]:
    """The configuration's values for every layout of the matrix on several ranks."""
    layouts = [
        layout
        for layout in itertools.product(TENSORS, PIPELINES, FACTORS["copies"])
        if 1 < processes(*layout) <= MAX_PROCESSES
    ]
    return {
        (tensor, pipeline, copies): TENSORS[tensor]
        | PIPELINES[pipeline]
        | {"num_layers": NUM_LAYERS, "seq_length": 68, "micro_batch_size": 4 // copies, "global_batch_size": 8}
        | beside
        for (tensor, pipeline, copies), beside in zip(layouts, itertools.cycle(BESIDE), strict=False)
    }


LONG = long_runs()
COPIES_GATHER = next(layout for layout, values in LONG.items() if layout[2] > 1 and "overlap_param_gather" in values)
ALWAYS = (("TP2 SP", "PP1", 1), ("TP1", "PP2", 1), COPIES_GATHER)  # in `make test`


class Weights:
    """Checkpoints with random weights: in a fresh model the gate hides the head from all other gradients."""

    def __init__(self, pool: Pool, folder: Path) -> None:
        self.pool, self.folder = pool, folder

    def of(self, values: dict[str, Any]) -> str:
        """The folder of the one for a configuration's model."""
        model = {name: values[name] for name in ("num_layers", "context_fusion") if name in values}
        folder = self.folder / "-".join(map(str, ["weights", *model.values()]))
        if not folder.exists():
            self.pool.run(save_random_weights, 1, folder=str(folder), backbone="gpt2", values=BATCH | model)
        return str(folder)


@pytest.fixture(scope="module")
def weights(pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> Weights:
    return Weights(pool, tmp_path_factory.mktemp("replicas"))


def differences(weights: Weights, layout: str, steps: int, **sabotage: str) -> list[str]:
    world_size, parallel = LAYOUTS[layout]
    values = BATCH | parallel
    ranks = weights.pool.run(drift, world_size, folder=weights.of(values), steps=steps, values=values, **sabotage)
    return sorted({sentence for rank in ranks for sentence in rank})


@pytest.mark.parametrize(
    "layout",
    [pytest.param(layout, marks=[] if layout in ALWAYS else [pytest.mark.full]) for layout in LONG],
    ids=lambda layout: "-".join(map(str, layout)),
)
def test_twenty_iterations_leave_all_copies_equal(weights: Weights, layout: Layout) -> None:
    world_size, values = processes(*layout), LONG[layout]
    ranks = weights.pool.run(drift, world_size, folder=weights.of(values), steps=20, values=values)
    assert ranks == [[]] * world_size


@pytest.mark.parametrize("unmarked", ["layernorm", "context_head.gate"])
def test_a_gradient_that_is_not_summed_is_noticed(weights: Weights, unmarked: str) -> None:
    found = differences(weights, "TP2 SP", 3, unmarked=unmarked)
    assert found and all(unmarked in sentence for sentence in found)
    assert all("tensor-parallel ranks [1], not as on rank 0" in sentence for sentence in found)


def test_one_bit_is_noticed_and_its_weight_and_rank_named(weights: Weights) -> None:
    for layout, kind in (("DP2", "data-parallel"), ("TP2", "tensor-parallel")):
        found = differences(weights, layout, 1, nudged="decoder.final_layernorm.weight")
        assert found == [f"decoder.final_layernorm.weight on {kind} ranks [1], not as on rank 0"]
    found = differences(weights, "PP2", 1, nudged="output_layer.weight")
    assert found == ["the tied embedding on pipeline ranks [1], not as on rank 0"]


def test_the_loop_checks_and_stops_on_every_rank(pool: Pool) -> None:
    assert set(pool.run(check_in_the_loop, 2, values=BATCH, nudge_rank=None)) == {""}
    values = BATCH | LAYOUTS["TP2 SP"][1]
    for message in pool.run(check_in_the_loop, 2, values=values, nudge_rank=1):
        assert "after iteration 2" in message and "context_head.gate on tensor-parallel ranks [1]" in message


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_checksum_sees_every_bit_and_every_place(dtype: torch.dtype) -> None:
    tensor = torch.randn(1000, generator=torch.Generator().manual_seed(0)).to(dtype)
    sums = {int(checksum(tensor))}
    assert int(checksum(tensor.clone())) in sums
    integers = {4: torch.int32, 2: torch.int16}[tensor.element_size()]
    for bit in range(8 * tensor.element_size() - 1):
        changed = tensor.clone()
        changed.view(integers)[17] ^= 1 << bit
        sums.add(int(checksum(changed)))
    swapped = tensor.clone()
    swapped[[3, 4]] = tensor[[4, 3]]
    sums.add(int(checksum(swapped)))
    assert len(sums) == 8 * tensor.element_size() + 1
