"""The planner's memory of a rank against the allocator's peak in a training step, at the sizes of real models.

Run with `-s` to see both, kind by kind.
"""

from __future__ import annotations

from typing import Any

import pytest

from contextlm.analysis.memory import RankMemory, rank_memory
from tests.distributed.matrix import RECOMPUTES
from tests.distributed.pool import Pool
from tests.gpu import cases
from tests.small_configs import small_config

pytestmark = pytest.mark.gpu

_SMALL = {"num_layers": 12, "hidden_size": 768, "num_attention_heads": 12}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2-124m": ("gpt2", _SMALL | {"seq_length": 1024, "vocab_size": 50257, "context_chunk_size": 0}),
    "contextlm-gpt2-124m": ("gpt2", _SMALL | {"seq_length": 1024, "vocab_size": 50257}),
    "contextlm-pythia-160m": ("pythia", _SMALL | {"seq_length": 2048, "vocab_size": 50304}),
}
# Layers are alike: four of them, of real widths, are compiled sooner.
_WIDE = {"num_layers": 4, "hidden_size": 1600, "num_attention_heads": 25}
MODELS |= {f"{name}, 4 layers": (backbone, sizes | {"num_layers": 4}) for name, (backbone, sizes) in MODELS.items()}
MODELS["gpt2-1.5b, 4 layers"] = "gpt2", MODELS["gpt2-124m"][1] | _WIDE
KIND = {"bf16": True, "transformer_impl": "torch"}


def planned(model: str, more: dict[str, Any]) -> RankMemory:
    """What the plan says of the one rank."""
    backbone, sizes = MODELS[model]
    return rank_memory(small_config(backbone, **sizes | KIND | more), sizes["vocab_size"], 0, 1)


def measured_and_planned(gpu_pool: Pool, model: str, more: dict[str, Any]) -> tuple[int, RankMemory]:
    """Bytes of the allocator's peak, and what the plan says."""
    backbone, sizes = MODELS[model]
    expected = planned(model, more)
    (measured,) = gpu_pool.run(cases.whole_peak_bytes, 1, backbone=backbone, values=sizes | KIND | more)
    kinds = ", ".join(f"{name} {size / 2**20:.0f}" for name, size in expected._asdict().items())
    print(
        f"\n{model}, {more}: measured {measured / 2**20:.1f} MiB, planned {expected.total / 2**20:.1f} "
        f"({expected.total / measured - 1:+.2%}): {kinds}"
    )
    return measured, expected


@pytest.mark.parametrize("recompute", ["nothing", "attention", "attention and MLP", "uniform 1", "block 1"])
@pytest.mark.parametrize("micro_batch_size", [2, 8])
@pytest.mark.parametrize("model", [name for name in MODELS if "layers" not in name])
def test_the_planner_says_the_peak(gpu_pool: Pool, model: str, micro_batch_size: int, recompute: str) -> None:
    batch = {"micro_batch_size": micro_batch_size, "global_batch_size": 2 * micro_batch_size}
    measured, expected = measured_and_planned(gpu_pool, model, batch | RECOMPUTES[recompute])
    assert measured == pytest.approx(expected.total, rel=0.05)
    if micro_batch_size == 2 and recompute == "uniform 1":  # where a kind matters, a formula without it is noticed
        assert measured != pytest.approx(expected.total - expected.gradients, rel=0.05)


# Micro-batches an iteration: of one the gradients stay where autograd leaves them.
COMPILED = (
    ("gpt2-124m, 4 layers", "model", 8, 2, "nothing"),
    ("contextlm-gpt2-124m, 4 layers", "model", 8, 1, "nothing"),
    ("contextlm-gpt2-124m, 4 layers", "layer", 8, 1, "nothing"),
    ("contextlm-pythia-160m, 4 layers", "model", 8, 1, "nothing"),
    ("contextlm-pythia-160m, 4 layers", "layer", 8, 2, "uniform 1"),
    ("gpt2-1.5b, 4 layers", "model", 1, 2, "nothing"),
)


@pytest.mark.parametrize(("model", "unit", "micro_batch_size", "num_microbatches", "recompute"), COMPILED)
def test_the_planner_says_the_peak_of_a_compiled_model(
    gpu_pool: Pool, model: str, unit: str, micro_batch_size: int, num_microbatches: int, recompute: str
) -> None:
    batch = {"micro_batch_size": micro_batch_size, "global_batch_size": num_microbatches * micro_batch_size}
    measured, expected = measured_and_planned(gpu_pool, model, {"compile": unit} | batch | RECOMPUTES[recompute])
    assert measured == pytest.approx(expected.total, rel=0.05)
    if micro_batch_size == 1:  # where most of it is gradients, the formula for a model that is not compiled is noticed
        assert measured != pytest.approx(planned(model, {"compile": "off"} | batch).total, rel=0.03)
