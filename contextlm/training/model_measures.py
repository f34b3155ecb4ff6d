"""What is measured of the whole model at a log line: the norm of its weights, its gate, the memory it took.

Each rank has a part; every rank learns the whole. Collective, and it waits for the device: only for log lines.
"""

from __future__ import annotations

import math
import resource
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
    """

    params_norm: float
    gate: float | None
    peak_memory_bytes: int


def measure(run: Run) -> ModelMeasures:
    """The measures after the last update."""
    norm = parameter_norm(run.optimizer)
    context, gates = run.config.context, []
    if context.enabled and context.context_fusion in ("gated", "gated_channel"):  # else nothing need be gathered
        with gathered_weights(run):
            gates = [value for head in heads(run.language_model) if (value := head.gate_value()) is not None]
    gate = float(gates[0]) if gates else -math.inf  # less than any gate: the stage that has it wins
    greatest = torch.tensor([gate, peak_memory_bytes(run.runtime.device)], dtype=torch.float64)
    greatest = greatest.to(run.runtime.device)
    torch.distributed.all_reduce(greatest, op=torch.distributed.ReduceOp.MAX)
    gate, peak = greatest.tolist()
    return ModelMeasures(norm.item(), None if gate == -math.inf else gate, int(peak))


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
