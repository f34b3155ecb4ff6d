"""Random numbers: equal where ranks hold the same thing, different where they do not."""

from __future__ import annotations

from megatron.core.tensor_parallel import model_parallel_cuda_manual_seed

from contextlm.parallel.layout import Layout


def seed_weights(seed: int, layout: Layout) -> None:
    """Before the model is built: the copies of a model start equal, its stages and matrix parts do not."""
    model_parallel_cuda_manual_seed(seed + 100 * layout.pipeline_rank, force_reset_rng=True)


def seed_dropout(seed: int, layout: Layout) -> None:
    """After the model is built: the copies of a model see different samples and drop different units."""
    own = seed + 100 * layout.pipeline_rank + 10_000 * (1 + layout.data_rank)
    model_parallel_cuda_manual_seed(own, force_reset_rng=True)
