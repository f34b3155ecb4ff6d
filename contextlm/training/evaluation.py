"""Evaluation: token-weighted loss, perplexity and bits per byte of a stream of samples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from contextlm.analysis.measures import Evaluation
from contextlm.training.step import forward_backward

if TYPE_CHECKING:
    from contextlm.data.samples import EpochSamples
    from contextlm.training.setup import Run


def evaluate(run: Run, samples: EpochSamples, num_iters: int | None) -> Evaluation | None:
    """Evaluate on the first samples of a stream, at most one pass.

    Args:
        run: the run; its weights and generators are left as they are.
        samples: the stream.
        num_iters: global batches; None for one whole pass.

    Returns:
        None where the stream is shorter than one micro-batch of every data-parallel rank.
    """
    size = run.config.training.micro_batch_size * run.layout.data_parallel_size
    left = samples.samples_per_epoch // size
    per_iteration = run.config.global_batch_size(run.runtime.world_size) // size
    if num_iters is not None:
        left = min(left, num_iters * per_iteration)
    if left == 0:
        return None
    batches = _endless(run.micro_batches(samples, 0, num_microbatches=left, last_sample=left * size))
    sums = torch.zeros(3, dtype=torch.float64, device=run.runtime.device)
    for part in run.model:
        part.eval()
    with torch.no_grad():
        while left > 0:
            count = min(left, per_iteration)
            sums += forward_backward(
                run,
                batches,
                num_microbatches=count,
                forward_only=True,
                token_byte_lengths=run.token_byte_lengths,
            )
            left -= count
    for part in run.model:
        part.train()
    # The last stage has the sums; its last rank is the last of all.
    torch.distributed.broadcast(sums, src=run.runtime.world_size - 1)
    loss_sum, num_tokens, num_bytes = sums.tolist()
    return Evaluation(loss_sum / num_tokens, int(num_tokens), int(num_bytes))


def _endless(batches: Iterator[torch.Tensor] | None) -> Iterator[torch.Tensor] | None:
    """The same micro-batches, and then the last one again and again, to fill an interleaved pipeline."""
    if batches is None:
        return None

    def repeated() -> Iterator[torch.Tensor]:
        batch = None
        for batch in batches:
            yield batch
        while batch is not None:
            yield batch

    return repeated()
