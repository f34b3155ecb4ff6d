"""Evaluation: token-weighted loss, perplexity and bits per byte of a stream of samples.

Of a model with a context head also what the context is worth: the loss at each position of a chunk, and the loss
over the same samples with zero in place of every prediction.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from contextlm.analysis.measures import Evaluation, has_zeroed_pass
from contextlm.model.context_head import controlled
from contextlm.training.step import forward_backward
from contextlm.training.token_sums import LOSS_AND_TOKENS, TokenSums

if TYPE_CHECKING:
    from contextlm.data.samples import Samples
    from contextlm.training.setup import Run


def evaluate(run: Run, samples: Samples, num_iters: int | None) -> Evaluation | None:
    """Evaluate on the first samples of a stream, at most one pass.

    Args:
        run: the run; its weights and generators are left as they are.
        samples: the stream.
        num_iters: global batches; None for one whole pass.

    Returns:
        None where the stream is shorter than one micro-batch of every data-parallel rank.
    """
    left = evaluated_samples(run, samples, num_iters) // run.samples_of_a_pass
    if left == 0:
        return None
    chunk_size = run.config.context.context_chunk_size
    loss_sum, num_tokens, num_bytes, *at_positions = _summed(
        run, samples, left, TokenSums(run.token_byte_lengths, chunk_size)
    )
    loss, zeroed = _mean(loss_sum, num_tokens), None
    if has_zeroed_pass(run.config):
        with controlled(run.language_model, "zero"):
            zeroed = _mean(_summed(run, samples, left, LOSS_AND_TOKENS)[0], num_tokens)
    if not chunk_size:
        return Evaluation(loss, int(num_tokens), int(num_bytes))
    means = tuple(map(_mean, at_positions[:chunk_size], at_positions[chunk_size:]))
    return Evaluation(loss, int(num_tokens), int(num_bytes), means, zeroed)


def _mean(loss_sum: float, num_tokens: float) -> float:
    """Loss per token; NaN where no token counts."""
    return loss_sum / num_tokens if num_tokens else math.nan


def evaluated_samples(run: Run, samples: Samples, num_iters: int | None) -> int:
    """How many of the first samples are evaluated: those of `num_iters` global batches, at most one whole pass."""
    passes = samples.samples_per_epoch // run.samples_of_a_pass
    if num_iters is not None:
        passes = min(passes, num_iters * run.config.num_microbatches(run.runtime.world_size))
    return passes * run.samples_of_a_pass


def _summed(run: Run, samples: Samples, num_microbatches: int, token_sums: TokenSums) -> list[float]:
    """The sums over the first micro-batches of every data-parallel rank, known to all ranks."""
    per_iteration = run.config.num_microbatches(run.runtime.world_size)
    last_sample = num_microbatches * run.samples_of_a_pass
    batches = _endless(run.micro_batches(samples, 0, num_microbatches, last_sample))
    sums = torch.zeros(token_sums.size, dtype=torch.float64, device=run.runtime.device)
    with _without_dropout(run), torch.no_grad():
        for first in range(0, num_microbatches, per_iteration):
            sums += forward_backward(
                run,
                batches,
                num_microbatches=min(per_iteration, num_microbatches - first),
                forward_only=True,
                token_sums=token_sums,
            ).total
    # The last stage has the sums; its last rank is the last of all.
    torch.distributed.broadcast(sums, src=run.runtime.world_size - 1)
    return sums.tolist()


@contextlib.contextmanager
def _without_dropout(run: Run) -> Iterator[None]:
    """Inside, the model evaluates; after it, it is in the mode in which it was found."""
    modes = [part.training for part in run.model]
    for part in run.model:
        part.eval()
    try:
        yield
    finally:
        for part, mode in zip(run.model, modes, strict=True):
            part.train(mode)


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
