"""One iteration: forward and backward over the micro-batches, then one update.

Shapes: B samples of a micro-batch, S tokens of a sample.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from megatron.core.pipeline_parallel import get_forward_backward_func
from torch import Tensor

from contextlm.training import whereabouts
from contextlm.training.optimizer import apply_schedule
from contextlm.training.token_sums import LOSS_AND_TOKENS, TokenSums

if TYPE_CHECKING:
    from contextlm.training.setup import Run

Batches = Iterator[Tensor] | None
"""Micro-batches [B, S + 1] of token ids; None on a stage that needs none."""


class StepResult(NamedTuple):
    """What one iteration did; loss and gradient norm (before the clip) stay on the device, scalars in fp64.

    An fp16 iteration whose gradients overflow updates nothing, lowers the loss scale and has no gradient norm.
    """

    loss: Tensor
    num_samples: int
    grad_norm: Tensor | None
    learning_rate: float
    loss_scale: Tensor | float
    skipped: bool


def train_step(run: Run, batches: Batches) -> StepResult:
    """One iteration, whose number is that of the finished ones plus one."""
    loss, num_samples = compute_gradients(run, batches), run.global_batch_size
    lr = apply_schedule(run.config, run.optimizer, run.schedule_position)
    loss_scale = run.optimizer.get_loss_scale() if run.config.training.fp16 else 1.0
    run.where.at(whereabouts.UPDATE)
    updated, grad_norm, _ = run.optimizer.step()
    return StepResult(loss, num_samples, grad_norm, lr, loss_scale, skipped=not updated)


def compute_gradients(run: Run, batches: Batches) -> Tensor:
    """Fill the gradient buffers from one global batch.

    loss = (sum of the token losses over all micro-batches and data-parallel ranks) / (number of those tokens)

    Returns:
        the loss on ranks of the last stage, zero elsewhere; a scalar on the device.
    """
    for part in run.model:
        part.zero_grad_buffer()
    run.optimizer.zero_grad()
    sums = forward_backward(run, batches, num_microbatches=run.num_microbatches)
    return sums[0] / sums[1].clamp(min=1)


def forward_backward(
    run: Run,
    batches: Batches,
    *,
    num_microbatches: int,
    forward_only: bool = False,
    token_sums: TokenSums = LOSS_AND_TOKENS,
) -> Tensor:
    """Run the pipeline schedule.

    Args:
        run: the run.
        batches: micro-batches of this data-parallel rank.
        num_microbatches: how many to take; an interleaved pipeline takes whole rounds of its stages, and
            micro-batches that fill the last one are not counted (in training there are none).
        forward_only: no backward pass.
        token_sums: what to sum over the tokens.

    Returns:
        the sums over micro-batches and data-parallel ranks, fp64 [token_sums.size]; zeros on ranks that do not
        compute the loss.
    """
    parallel, num_parts = run.config.parallel, len(run.model)
    # Parts of a stage that read tokens read the same ones, each in its time.
    iterators = _one_for_each_reader(batches, run.parts_that_read)
    schedule = get_forward_backward_func(parallel.pipeline_model_parallel_size, num_parts if num_parts > 1 else None)
    filling = -num_microbatches % parallel.pipeline_model_parallel_size if num_parts > 1 else 0
    # A stage that waits for another one's states has not reached its own first forward pass.
    iteration, phase = run.progress.iteration, whereabouts.EVALUATION if forward_only else whereabouts.COMPUTATION
    run.where.at(phase, iteration + (not forward_only))
    reports = schedule(
        forward_step_func=_forward_step(run, token_sums, forward_only),
        data_iterator=iterators if num_parts > 1 else iterators[0],
        model=list(run.model),
        num_microbatches=num_microbatches + filling,
        seq_length=run.config.model.seq_length,
        micro_batch_size=run.config.training.micro_batch_size,
        forward_only=forward_only,
    )
    if not run.layout.is_last_stage:
        return torch.zeros(token_sums.size, dtype=torch.float64, device=run.runtime.device)
    sums = torch.stack(reports[:num_microbatches]).sum(dim=0)
    torch.distributed.all_reduce(sums, group=run.layout.groups.dp)
    return sums


def _one_for_each_reader(batches: Batches, reads: Sequence[bool]) -> list[Batches]:
    """The micro-batches for each part of a stage that reads them."""
    copies = iter((batches,) if sum(reads) < 2 or batches is None else itertools.tee(batches, sum(reads)))
    return [next(copies) if part_reads else None for part_reads in reads]


def _forward_step(run: Run, token_sums: TokenSums, forward_only: bool) -> Callable[..., tuple[Tensor, Callable]]:
    """The function that megatron-core's schedule calls for each micro-batch."""

    passes = itertools.count(1)
    iteration = run.progress.iteration + (not forward_only)
    wait, work = [whereabouts.EVALUATION] * 2 if forward_only else [whereabouts.DATA, whereabouts.COMPUTATION]

    def forward_step(batches: Batches, model: torch.nn.Module) -> tuple[Tensor, Callable]:
        number = next(passes)
        run.where.at(wait, iteration, number)
        batch = None if batches is None else run.document_ends.batch(next(batches), run.runtime.device)
        run.where.at(work, iteration, number)
        tokens_BS, positions_BS, documents = (None, None, None) if batch is None else batch.inputs
        output = model(
            tokens_BS,
            positions_BS,
            None,
            labels=None if batch is None else batch.labels_BS,
            packed_seq_params=documents,
        )

        def loss_func(loss_BS: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            assert batch is not None
            if batch.scored_BS is None:
                num_tokens = torch.full((), loss_BS.numel(), dtype=torch.int, device=loss_BS.device)
                return loss_BS.float().sum(), num_tokens, token_sums.of(loss_BS, batch)
            loss = loss_BS.float().masked_fill(~batch.scored_BS, 0).sum()
            return loss, batch.scored_BS.sum(dtype=torch.int), token_sums.of(loss_BS, batch)

        return output, loss_func

    return forward_step
