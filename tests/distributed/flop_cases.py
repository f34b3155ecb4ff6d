"""What a rank of a FLOP test does: builds models, counts their parameters and their operations; run by the pool."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.distributed.runs import small_run


class Counted(NamedTuple):
    """Of a built model: parameters, operations per token of a forward pass, and of a forward and a backward pass."""

    parameters: int
    forward: float
    training: float


def counted(models: Sequence[tuple[str, dict[str, Any]]]) -> list[Counted]:
    """Counts of models, each a backbone and values of the configuration."""
    return [_counted(backbone, values) for backbone, values in models]


def _counted(backbone: str, values: dict[str, Any]) -> Counted:
    with small_run(backbone, **values) as run:
        model, length = run.model[0].train(), run.config.model.seq_length
        ids_BS = torch.randint(run.tokenizer.vocab_size, (2, length), generator=torch.Generator().manual_seed(1))
        positions_BS = torch.arange(length).expand_as(ids_BS)
        # The fused attention kernels of the CPU are counted as 0.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as forward:
            loss_BS = model(ids_BS, positions_BS, None, labels=ids_BS)
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as backward:
            loss_BS.sum().backward()
        parameters = sum(parameter.numel() for parameter in model.parameters())
        counts = (forward.get_total_flops(), forward.get_total_flops() + backward.get_total_flops())
        return Counted(parameters, *(count / ids_BS.numel() for count in counts))
