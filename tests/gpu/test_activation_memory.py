"""The allocator of a GPU holds what the formula says, in bf16 with dropout."""

from __future__ import annotations

import pytest

from contextlm.analysis.activation_memory import Activations
from contextlm.analysis.activation_peak import peak_activations
from contextlm.analysis.activation_segments import segments
from contextlm.analysis.execution import Execution
from tests.distributed.layouts import LAYOUTS
from tests.distributed.matrix import RECOMPUTES
from tests.distributed.pool import Pool
from tests.gpu import cases
from tests.small_configs import BACKBONES, VOCAB_SIZE, small_config

pytestmark = pytest.mark.gpu

# Large enough that activations, not the gradient of a weight or the rounding of sizes, make up the memory.
SIZES = {"num_layers": 16, "hidden_size": 512, "num_attention_heads": 8, "seq_length": 1024, "micro_batch_size": 4}
KIND = {"bf16": True, "hidden_dropout": 0.1, "attention_dropout": 0.1, "transformer_impl": "torch"}


@pytest.mark.parametrize("recompute", ["nothing", "attention and MLP", "uniform 1", "uniform 4", "block 1"])
@pytest.mark.parametrize("layout", ["one", "TP2", "TP2 SP"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_formula_says_what_the_allocator_holds(gpu_pool: Pool, backbone: str, layout: str, recompute: str) -> None:
    world_size, parallel = LAYOUTS[layout]
    if gpu_pool.size < world_size:
        pytest.skip(f"needs {world_size} GPUs")
    values = SIZES | KIND | parallel | RECOMPUTES[recompute]
    config = small_config(backbone, **values)
    parts = segments(
        Activations(config, VOCAB_SIZE, Execution()), range(config.model.num_layers), first=True, last=True
    )
    expected = (sum(part.kept for part in parts), peak_activations(config, VOCAB_SIZE, 0, 1, Execution()).total)
    for found in gpu_pool.run(cases.activation_bytes, world_size, backbone=backbone, values=values):
        assert found == pytest.approx(expected, rel=0.1)
