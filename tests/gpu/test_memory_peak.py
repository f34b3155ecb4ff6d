"""The planner's memory of a rank against the allocator's peak in a training step, at the sizes of real models.

Run with `-s` to see both, kind by kind.
"""

from __future__ import annotations

from typing import Any

import pytest

from contextlm.analysis.largest_micro_batch import COMPARED, largest
from contextlm.analysis.memory import RankMemory, rank_memory
from contextlm.config.presets import preset
from tests.distributed.matrix import RECOMPUTES
from tests.distributed.pool import Pool
from tests.gpu import cases
from tests.small_configs import small_config

pytestmark = pytest.mark.gpu

PLAIN = {"context_chunk_size": 0}
KIND = {"bf16": True, "transformer_impl": "torch"}
# Memory of kernels that are launched together is not given out again: the allocator sees no peak.
COMPILED = KIND | {"cuda_graphs": "off"}


def sizes(name: str) -> dict[str, Any]:
    """Values of a preset, plain or with the head of `small_config`, without its family."""
    return preset(name.removeprefix("contextlm-"))["model"] | ({} if name.startswith("contextlm") else PLAIN)


def planned(model: str, values: dict[str, Any]) -> RankMemory:
    """What the plan says of the one rank."""
    config = small_config(backbone(model), **sizes(model) | values)
    assert config.model.vocab_size is not None
    return rank_memory(config, config.model.vocab_size, 0, 1)


def backbone(model: str) -> str:
    """Its family."""
    return model.removeprefix("contextlm-").split("-")[0]


def measured(gpu_pool: Pool, model: str, values: dict[str, Any]) -> int:
    """Bytes of the allocator's peak, printed beside the plan's."""
    expected = planned(model, values)
    (peak,) = gpu_pool.run(cases.whole_peak_bytes, 1, backbone=backbone(model), values=sizes(model) | values)
    kinds = ", ".join(f"{name} {size / 2**20:.0f}" for name, size in expected._asdict().items())
    print(
        f"\n{model}, {values}: measured {peak / 2**20:.1f} MiB, planned {expected.total / 2**20:.1f} "
        f"({expected.total / peak - 1:+.2%}): {kinds}"
    )
    return peak


@pytest.mark.parametrize("recompute", ["nothing", "attention", "attention and MLP", "uniform 1", "block 1"])
@pytest.mark.parametrize("micro_batch_size", [2, 8])
@pytest.mark.parametrize("model", ["gpt2-124m", "contextlm-gpt2-124m", "contextlm-pythia-160m"])
def test_the_planner_says_the_peak(gpu_pool: Pool, model: str, micro_batch_size: int, recompute: str) -> None:
    batch = {"micro_batch_size": micro_batch_size, "global_batch_size": 2 * micro_batch_size}
    values = KIND | batch | RECOMPUTES[recompute]
    peak, expected = measured(gpu_pool, model, values), planned(model, values)
    assert peak == pytest.approx(expected.total, rel=0.05)
    if micro_batch_size == 2 and recompute == "uniform 1":  # where a kind matters, a formula without it is noticed
        assert peak != pytest.approx(expected.total - expected.gradients, rel=0.05)


# Layers are alike: four of them are compiled sooner. Of one micro-batch an iteration gradients have no buffer.
CASES = (
    ("gpt2-124m", "model", 8, 2, "nothing"),
    ("contextlm-gpt2-124m", "model", 8, 1, "nothing"),
    ("contextlm-gpt2-124m", "layer", 8, 1, "nothing"),
    ("contextlm-pythia-160m", "model", 8, 1, "nothing"),
    ("contextlm-pythia-160m", "layer", 8, 2, "uniform 1"),
    ("gpt2-1.5b", "model", 1, 2, "nothing"),
)


@pytest.mark.parametrize(("model", "unit", "micro_batch_size", "num_microbatches", "recompute"), CASES)
def test_the_planner_says_the_peak_of_a_compiled_model(
    gpu_pool: Pool, model: str, unit: str, micro_batch_size: int, num_microbatches: int, recompute: str
) -> None:
    batch = {"micro_batch_size": micro_batch_size, "global_batch_size": num_microbatches * micro_batch_size}
    values = COMPILED | {"num_layers": 4, "compile": unit} | batch | RECOMPUTES[recompute]
    peak = measured(gpu_pool, model, values)
    assert peak == pytest.approx(planned(model, values).total, rel=0.05)
    if micro_batch_size == 1:  # where most of it is gradients, the formula for a model that is not compiled is noticed
        assert peak != pytest.approx(planned(model, values | {"compile": "off"}).total, rel=0.03)


def test_little_lies_outside_of_torchs_memory(gpu_pool: Pool) -> None:
    """NCCL's communicators do, one of each set of ranks."""
    gpu_pool.run(cases.bytes_outside, 1, values=KIND)  # what libraries load stays
    ours, stock = (gpu_pool.run(cases.bytes_outside, 1, values=KIND, mended=mended)[0] for mended in (True, False))
    assert ours < 1.5 * 2**30 and stock - ours > 3 * 2**30, (ours, stock)


def test_segments_grow(gpu_pool: Pool) -> None:
    """What lies in pieces serves a tensor that needs it whole; where a segment has one size, more is taken."""
    grown, stock = (gpu_pool.run(cases.held_bytes, 1, grows=grows)[0] for grows in (True, False))
    assert grown < 1.2 * 2**30 and stock > 2 * 2**30, (grown, stock)


@pytest.mark.parametrize(("model", "recompute"), [("gpt2-355m", "nothing"), ("contextlm-pythia-410m", "uniform 1")])
def test_the_largest_micro_batch_fits_this_gpu(gpu_pool: Pool, model: str, recompute: str) -> None:
    """Of more than 2^31 logits on a GPU of 80 GiB."""
    (memory_bytes,) = gpu_pool.run(cases.memory_of_gpu, 1)
    values = COMPILED | {"compile": "auto"} | RECOMPUTES[recompute]
    found = largest(small_config(backbone(model), **sizes(model) | values), 1, memory_bytes)
    samples = found.samples[COMPARED.index("nothing" if recompute == "nothing" else "every layer")]
    values |= {"micro_batch_size": samples, "global_batch_size": samples}
    assert measured(gpu_pool, model, values) == pytest.approx(planned(model, values).total, rel=0.05)
