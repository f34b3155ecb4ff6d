"""Gradients without a buffer: where one GPU takes one micro-batch an iteration, they stay where autograd leaves them.

megatron-core's fp32 buffers add up micro-batches and are exchanged with other ranks. Where there is neither, filling
them moves 6 bytes for each parameter of 16 bits, and AdamW reads 4 where 2 say the same.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from megatron.core.distributed import DistributedDataParallel
from megatron.core.optimizer import MegatronOptimizer

from contextlm.config.schema import Config
from contextlm.config.unbuffered import adds_nothing_up
from contextlm.training.optimizer import owners


def without_buffers(config: Config, num_ranks: int, device: torch.device) -> bool:
    """Whether the gradients of this run need none; torch's own AdamW knows only gradients of its weights' type."""
    return device.type == "cuda" and adds_nothing_up(config, num_ranks)


def leave_gradients(model: Iterable[DistributedDataParallel], optimizer: MegatronOptimizer) -> None:
    """Give back the memory of the buffers, leave each gradient in its parameter's `grad`, and tell AdamW of it."""
    for part in model:
        part.grad_accs.clear()  # they hold the hooks that move gradients to the buffers
        part.params_with_grad.clear()
        for buffer in part.buffers:
            buffer.grad_data.untyped_storage().resize_(0)
    (chained,) = optimizer.chained_optimizers
    chained.optimizer.owners = owners(chained)
