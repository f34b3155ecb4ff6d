"""What is measured of the whole model at a log line: the norm of its weights, its gate, the memory it took;
and how fast each rank worked.

Each rank has a part; every rank learns the whole. Collective, and it waits for the device: only for log lines.
"""

from __future__ import annotations

import math
import resource
import statistics
import sys
from typing import TYPE_CHECKING, NamedTuple

import torch
from megatron.core.optimizer import MegatronOptimizer
from megatron.core.tensor_parallel import param_is_not_tensor_parallel_duplicate
from megatron.core.transformer.module import param_is_not_shared

from contextlm.megatron import grad_norm
from contextlm.model.context_head import heads
from contextlm.training.setup import gathered_weights

if TYPE_CHECKING:
    from contextlm.training.setup import Run


class ModelMeasures(NamedTuple):
    """The names are those of metrics.jsonl.

    Attributes:
        params_norm: L2 norm of all weights, the fp32 master weights where there are any.
        gate: value of the gate; of a gate per channel the mean absolute value; None without a gate.
        peak_memory_bytes: the most that any rank has taken so far: of its GPU through torch, else of the machine.
        own_ms_fastest, own_ms_median, own_ms_slowest: of the ranks' own work, see `own_work.py`.
        slowest_rank: whose it is.
    """

    params_norm: float
    gate: float | None
    peak_memory_bytes: int
    own_ms_fastest: float
    own_ms_median: float
    own_ms_slowest: float
    slowest_rank: int


def measure(run: Run, own_seconds: float = 0.0) -> ModelMeasures:
    """The measures after the last update.

    Args:
        own_seconds: of this rank's own work in an iteration.
    """
    norm = parameter_norm(run.optimizer)
    context, gates = run.config.context, []
    if context.enabled and context.context_fusion in ("gated", "gated_channel"):  # else nothing need be gathered
        with gathered_weights(run):
            gates = [value for head in heads(run.language_model) if (value := head.gate_value()) is not None]
    gate = float(gates[0]) if gates else -math.inf  # less than any gate: the stage that has it wins
    mine = torch.tensor([gate, peak_memory_bytes(run.runtime.device), own_seconds * 1000], dtype=torch.float64)
    mine = mine.to(run.runtime.device)
    everyones = mine.new_empty(run.runtime.world_size * len(mine))
    torch.distributed.all_gather_into_tensor(everyones, mine)
    gates, peaks, own = everyones.view(-1, len(mine)).T.tolist()
    return ModelMeasures(
        norm.item(),
        None if max(gates) == -math.inf else max(gates),
        int(max(peaks)),
        min(own),
        statistics.median_low(own),
        max(own),
        own.index(max(own)),
    )


def parameter_norm(optimizer: MegatronOptimizer) -> torch.Tensor:
    """The L2 norm over all weights of the model, each once, by the rule of the gradient norm: a scalar, fp64.

    The rows that pad the vocabulary count; their number depends on the tensor-parallel size.
    """
    (single,) = optimizer.chained_optimizers
    weights = [
        weight.detach()
        for weight in single.get_parameters()
        if param_is_not_shared(weight)
        and param_is_not_tensor_parallel_duplicate(weight, getattr(single, "tp_group", None))
    ]
    return grad_norm.norm(weights, grad_stats_parallel_group=single.get_grad_stats_parallel_group())


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory of `device` that this process has taken: torch's allocations, or on a CPU its resident size."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
