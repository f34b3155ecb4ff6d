"""Weights that several ranks hold stay the same bits on all of them, and a difference is found and named."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from contextlm.training.replicas import checksum
from tests.distributed.layouts import LAYOUTS
from tests.distributed.matrix import FACTORS, MAX_PROCESSES, NUM_LAYERS, OPTIMIZERS, PIPELINES, TENSORS, processes
from tests.distributed.pool import Pool
from tests.distributed.replica_cases import check_in_the_loop, drift

BATCH = {"micro_batch_size": 1, "global_batch_size": 4, "seq_length": 68}
# What every other layout of the matrix has beside it, in turn.
BESIDE = itertools.cycle(
    [
        {"hidden_dropout": 0.1, "attention_dropout": 0.1},
        OPTIMIZERS["distributed, overlap and gather"],
        {"context_fusion": "norm_add"},
        {"bf16": True},
        OPTIMIZERS["plain, overlap"],
    ]
)
LONG = {
    (tensor, pipeline, copies): TENSORS[tensor]
    | PIPELINES[pipeline]
    | {"num_layers": NUM_LAYERS, "seq_length": 68, "micro_batch_size": 4 // copies, "global_batch_size": 8}
    | next(BESIDE)
    for tensor, pipeline, copies in itertools.product(TENSORS, PIPELINES, FACTORS["copies"])
    if 1 < processes(tensor, pipeline, copies) <= MAX_PROCESSES
}
ALWAYS = (("TP2 SP", "PP1", 1), ("TP1", "PP2", 1))  # in `make test`


def differences(pool: Pool, layout: str, steps: int, values: dict[str, Any], fault: str | None = None) -> list[str]:
    world_size, parallel = LAYOUTS[layout]
    ranks = pool.run(drift, world_size, steps=steps, values=BATCH | parallel | values, fault=fault)
    return sorted({sentence for rank in ranks for sentence in rank})


@pytest.mark.parametrize(
    ("tensor", "pipeline", "copies"),
    [pytest.param(*layout, marks=[] if layout in ALWAYS else [pytest.mark.full]) for layout in LONG],
)
def test_twenty_iterations_leave_all_copies_equal(pool: Pool, tensor: str, pipeline: str, copies: int) -> None:
    world_size, values = processes(tensor, pipeline, copies), LONG[tensor, pipeline, copies]
    assert pool.run(drift, world_size, steps=20, values=values) == [[]] * world_size


def test_a_gradient_that_is_not_summed_is_noticed(pool: Pool) -> None:
    found = differences(pool, "TP2 SP", 3, {}, fault="unmarked")
    assert found and all("tensor-parallel ranks [1], not as on rank 0" in sentence for sentence in found)


def test_one_bit_is_noticed_and_its_weight_and_rank_named(pool: Pool) -> None:
    for layout, kind in (("DP2", "data-parallel"), ("TP2", "tensor-parallel")):
        found = differences(pool, layout, 1, {}, fault="nudged")
        assert found == [f"decoder.final_layernorm.weight on {kind} ranks [1], not as on rank 0"]
    found = differences(pool, "PP2", 1, {}, fault="nudged embedding")
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
