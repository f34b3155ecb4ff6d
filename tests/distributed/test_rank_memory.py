"""The memory of a rank, kind by kind, is what the formula says: the tensors of real runs, and a CPU's allocator."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from contextlm.analysis.activation_peak import peak_activations
from contextlm.analysis.execution import Execution
from contextlm.analysis.memory import rank_memory
from tests.distributed import memory_cases
from tests.distributed.layouts import LAYOUTS
from tests.distributed.matrix import OPTIMIZERS, PRECISIONS, RECOMPUTES
from tests.distributed.pool import Pool
from tests.small_configs import VOCAB_SIZE, small_config

ROWS = (
    ("gpt2", "PP2", "bf16", "distributed"),  # a tied table twice
    ("pythia", "TP2 SP x DP2", "bf16", "distributed"),
    ("gpt2", "DP2", "fp32", "plain"),
)
MORE_ROWS = (
    ("gpt2", "one", "fp32", "distributed"),
    ("pythia", "PP2 interleaved x DP2", "fp16", "distributed, overlap and gather"),
    ("gpt2", "PP3 of 1 + 2 + 1 layers", "bf16, sums in bf16", "plain"),
)


def state_values(layout: str, precision: str, optimizer: str) -> tuple[int, dict[str, Any]]:
    world_size, parallel = LAYOUTS[layout]
    # Wide enough that the padding of buckets to multiples of 128 does not matter.
    sizes = {"hidden_size": 192, "context_encoder_layers": 1, "global_batch_size": 4}
    return world_size, sizes | parallel | PRECISIONS[precision] | OPTIMIZERS[optimizer]


@pytest.mark.parametrize(
    "row", [*ROWS, *(pytest.param(row, marks=pytest.mark.full) for row in MORE_ROWS)], ids="-".join
)
def test_weights_gradients_and_optimizer_are_tensors_of_this_size(pool: Pool, row: tuple[str, str, str, str]) -> None:
    backbone, layout, precision, optimizer = row
    world_size, values = state_values(layout, precision, optimizer)
    config = small_config(backbone, **values)
    measured = pool.run(memory_cases.state_bytes, world_size, backbone=backbone, values=values)
    stages = config.parallel.pipeline_model_parallel_size
    per_stage = world_size // stages
    for stage in range(stages):
        memory = rank_memory(config, VOCAB_SIZE, stage, world_size, on_cuda=False)
        if not config.parallel.accumulate_allreduce_grads_in_fp32:  # without the copies of the update: below
            memory = memory._replace(gradients=memory.weights)
        ranks = measured[stage * per_stage : (stage + 1) * per_stage]
        for kind in ("weights", "gradients", "optimizer"):
            # Data-parallel ranks share the optimizer's states in equal parts of the padded buckets.
            mean = sum(rank[kind] for rank in ranks) / per_stage
            assert mean == pytest.approx(getattr(memory, kind), rel=0.02), (stage, kind)


class Peak(NamedTuple):
    """A step whose memory is measured, by the names of the layout matrix."""

    backbone: str
    layout: str = "one"
    recompute: str = "nothing"
    precision: str = "fp32"
    seq_length: int = 256
    tolerance: float = 0.02


PEAKS = (
    Peak("gpt2"),
    # The two gradients of a tied table; states of random generators are 2% of so little.
    Peak("gpt2", recompute="uniform 1", seq_length=32, tolerance=0.05),
    # gloo lets go of what it has sent when it likes.
    Peak("pythia", "TP2", tolerance=0.1),
    Peak("gpt2", "PP2", tolerance=0.1),
)
MORE_PEAKS = (
    # Products of 16 bits take memory of their own on a CPU.
    Peak("pythia", recompute="attention and MLP", precision="bf16", tolerance=0.05),
    Peak("pythia", recompute="uniform 1"),
)


@pytest.mark.parametrize("row", [*PEAKS, *(pytest.param(row, marks=pytest.mark.full) for row in MORE_PEAKS)], ids=str)
def test_the_allocator_gives_out_activations_and_logits(pool: Pool, row: Peak) -> None:
    """In a whole step: of their own the optimizer and the reports of the loss take next to nothing."""
    world_size, parallel = LAYOUTS[row.layout]
    shape = {"hidden_size": 128, "seq_length": row.seq_length, "micro_batch_size": 2, "global_batch_size": 4}
    values = shape | parallel | RECOMPUTES[row.recompute] | PRECISIONS[row.precision]
    config = small_config(row.backbone, **values)
    measured = pool.run(memory_cases.allocated, world_size, backbone=row.backbone, values=values)
    number, stages = config.num_microbatches(world_size), config.parallel.pipeline_model_parallel_size
    per_stage = world_size // stages
    # Of ranks that do the same, the one that held least.
    least = [min(measured[stage * per_stage : (stage + 1) * per_stage]) for stage in range(stages)]

    def formula(passing: bool) -> list[int]:
        return [
            peak_activations(config, VOCAB_SIZE, stage, number, Execution(on_cuda=False), passing=passing).total
            for stage in range(stages)
        ]

    assert least == pytest.approx(formula(passing=True), rel=row.tolerance)
    if world_size == 1:  # what no operation keeps would be missed
        assert least != pytest.approx(formula(passing=False), rel=row.tolerance)


@pytest.mark.parametrize("optimizer", ["distributed", "plain"])
def test_sums_in_16_bits_have_copies_at_the_update(pool: Pool, optimizer: str) -> None:
    shape = {"hidden_size": 512, "seq_length": 16, "micro_batch_size": 1, "global_batch_size": 2}
    values = shape | PRECISIONS["bf16, sums in bf16"] | OPTIMIZERS[optimizer]
    memory = rank_memory(small_config("gpt2", **values), VOCAB_SIZE, 0, 1, on_cuda=False)
    (measured,) = pool.run(memory_cases.allocated, 1, backbone="gpt2", values=values)
    beside = memory.gradients - memory.weights + memory.activations + memory.logits  # the buffer is as large as they
    assert measured == pytest.approx(beside, rel=0.02)
    assert measured > 4 * (memory.activations + memory.logits)  # which would not be enough
