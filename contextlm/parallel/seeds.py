"""Random numbers: equal where ranks hold the same thing, different where they do not."""

from __future__ import annotations

import torch
from megatron.core.tensor_parallel import model_parallel_cuda_manual_seed

from contextlm.parallel.layout import Layout


def seed_weights(seed: int, layout: Layout) -> None:
    """Before the model is built: the copies of a model start equal, its stages and matrix parts do not."""
    _seed(seed + 100 * layout.pipeline_rank)


def seed_dropout(seed: int, layout: Layout) -> None:
    """After the model is built: the copies of a model see different samples and drop different units."""
    _seed(seed + 100 * layout.pipeline_rank + 10_000 * (1 + layout.data_rank))


def _seed(seed: int) -> None:
    """Seed every generator; on a GPU the position table is still drawn with the host's."""
    torch.manual_seed(seed)
    model_parallel_cuda_manual_seed(seed, force_reset_rng=True)
