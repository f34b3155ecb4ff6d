"""Compile the model of a stage: as one graph, or layer by layer. `--compile` says which.

A compiler fuses norms, GELU, residuals and the context head into a fifth of the kernels, and never waits for Python
between them; the loss has kernels of its own (`megatron/fused_loss.py`). The weights, their names and the checkpoints
stay what they are.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from contextlm.config.compile_unit import compile_unit, replays
from contextlm.config.schema import Config
from contextlm.errors import UserError
from contextlm.model.backends import TorchSpecProvider, choose_backend
from contextlm.model.language_model import ContextLM

_MOST_GRAPHS = 32  # of one kind of layer: with and without gradients, recomputed or not, of one sample; 7 were seen


def compiled_unit(config: Config, data_parallel_size: int, device: torch.device) -> str:
    """What of the model is compiled on a device: "model", "layer" or "off"; Transformer Engine's layers never are.

    Raises:
        UserError: it was demanded, and cannot be had with the layers that are installed here.
    """
    unit = compile_unit(config, data_parallel_size, device.type == "cuda")
    if isinstance(choose_backend(config.model.transformer_impl, config.half_precision, config.fp8), TorchSpecProvider):
        return unit
    if config.training.compile in ("layer", "model"):
        raise UserError(f"--compile {unit}: the layers here are Transformer Engine's; add --transformer-impl torch")
    if config.training.cuda_graphs == "on":
        raise UserError("--cuda-graphs on: the layers here are Transformer Engine's; add --transformer-impl torch")
    return "off"


def is_replayed(config: Config, data_parallel_size: int, device: torch.device) -> bool:
    """Whether what is compiled has its kernels launched together, as CUDA graphs."""
    unit = compiled_unit(config, data_parallel_size, device)
    return unit == "model" and replays(config, data_parallel_size, device.type == "cuda")


def compile_parts(parts: Iterable[ContextLM], unit: str, replayed: bool = False) -> None:
    """Have the forward passes of `parts` compiled when they first run, and their backward passes with them.

    Args:
        parts: of this rank's stage, on its device; their matrices are not shared by tensor-parallel ranks.
        unit: "model", one graph from tokens to logits; "layer", one for each kind of layer; a break in a graph is an
            error. "off" changes nothing.
        replayed: have the kernels of a "model" launched together, as CUDA graphs.
    """
    if unit == "off":
        return
    from contextlm.model.whole_rows import read_rows_once  # takes the compiler along

    read_rows_once()
    limits = torch._dynamo.config  # a graph too many would be an error in the middle of a run
    limits.recompile_limit = max(limits.recompile_limit, _MOST_GRAPHS)
    for part in parts:
        if unit == "model":
            if part.position_embedding_type == "rope":
                part.rotary_pos_emb = _Angles(part.rotary_pos_emb, part.max_sequence_length)
            mode = "reduce-overhead" if replayed else None
            compiled = torch.compile(part.states_or_logits, fullgraph=True, dynamic=False, mode=mode)
            part.states_or_logits = compiled  # type: ignore[method-assign]
            continue
        for layer in part.decoder.layers:
            layer.compile(fullgraph=True, dynamic=False)


def seconds_spent() -> float:
    """How long this process has compiled, until now."""
    dynamo = sys.modules.get("torch._dynamo.utils")
    return 0.0 if dynamo is None else dynamo.calculate_time_spent()["total_wall_time"]


class _Angles(torch.nn.Module):
    """Rotation angles of all positions, worked out beforehand: megatron-core's module moves and caches tensors.

    Args:
        rotary: megatron-core's module.
        num_positions: how many.
    """

    def __init__(self, rotary: torch.nn.Module, num_positions: int) -> None:
        super().__init__()
        self.get_rotary_seq_len = rotary.get_rotary_seq_len
        self.angles_S11D = rotary(num_positions)  # no buffer: it must stay fp32 in a model of 16 bits

    def forward(self, length: int, **kwargs: Any) -> Tensor:
        """The angles of positions 0 to `length`, [length, 1, 1, D]."""
        assert length <= len(self.angles_S11D)
        return self.angles_S11D[:length]
