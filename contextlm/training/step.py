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
from contextlm.training.update import update

if TYPE_CHECKING:
    from contextlm.training.setup import Run

Batches = Iterator[Tensor] | None
"""Micro-batches [B, S + 1] of token ids; None on a stage that needs none."""


class StepResult(NamedTuple):
    """What one iteration did; what is a tensor stays on the device.

    Attributes:
        loss: of the global batch, fp64 scalar; 0 on ranks that do not compute it.
        num_samples: of the global batch.
        grad_norm: before the clip, fp64 scalar; None where fp16 gradients overflow, which lowers the loss scale.
        learning_rate: of the update.
        loss_scale: of the backward pass.
        skipped: why nothing was updated, a code of `skipping.Why`, int64 scalar; 0 if it was.
        own_sums: token sums of this rank's own micro-batches, fp64 [micro-batches, sums].
        own_norms: of this rank's gradients, fp32, in the order of its optimizer's.
    """

    loss: Tensor
    num_samples: int
    grad_norm: Tensor | None
    learning_rate: float
    loss_scale: Tensor | float
    skipped: Tensor
    own_sums: Tensor
    own_norms: Tensor | None


def train_step(run: Run, batches: Batches, token_sums: TokenSums = LOSS_AND_TOKENS) -> StepResult:
    """One iteration, whose number is that of the finished ones plus one."""
    sums, num_samples = compute_gradients(run, batches, token_sums), run.global_batch_size
    lr = apply_schedule(run.config, run.optimizer, run.schedule_position)
    loss_scale = run.optimizer.get_loss_scale() if run.config.training.fp16 else 1.0
    run.where.at(whereabouts.UPDATE)
    done = update(run, sums.loss)
    return StepResult(sums.loss, num_samples, done.grad_norm, lr, loss_scale, done.skipped, sums.own, done.own_norms)


class Sums(NamedTuple):
    """Sums over tokens, as a `TokenSums` has them, on the device; zeros on ranks that do not compute the loss.

    Attributes:
        total: over the micro-batches of all data-parallel ranks, fp64 [sums].
        own: of each micro-batch of this rank, fp64 [micro-batches, sums].
    """

    total: Tensor
    own: Tensor

    @property
    def loss(self) -> Tensor:
        """(sum of the token losses) / (number of those tokens), a scalar."""
        return self.total[0] / self.total[1].clamp(min=1)


def compute_gradients(run: Run, batches: Batches, token_sums: TokenSums = LOSS_AND_TOKENS) -> Sums:
    """Fill the gradient buffers from one global batch; the gradients are those of the `loss` of the sums."""
    for part in run.model:
        part.zero_grad_buffer()
    run.optimizer.zero_grad()
    return forward_backward(run, batches, num_microbatches=run.num_microbatches, token_sums=token_sums)


def forward_backward(
    run: Run,
    batches: Batches,
    *,
    num_microbatches: int,
    forward_only: bool = False,
    token_sums: TokenSums = LOSS_AND_TOKENS,
) -> Sums:
    """Run the pipeline schedule.

    Args:
        run: the run.
        batches: micro-batches of this data-parallel rank.
        num_microbatches: how many to take; an interleaved pipeline takes whole rounds of its stages, and
            micro-batches that fill the last one are not counted (in training there are none).
        forward_only: no backward pass.
        token_sums: what to sum over the tokens.
    """
    parallel, num_parts = run.config.parallel, len(run.model)
    # Parts of a stage that read tokens read the same ones, each in its time.
    iterators = _one_for_each_reader(batches, run.parts_that_read)
    schedule = get_forward_backward_func(parallel.pipeline_model_parallel_size, num_parts if num_parts > 1 else None)
    filling = -num_microbatches % parallel.pipeline_model_parallel_size if num_parts > 1 else 0
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
        own = torch.zeros(num_microbatches, token_sums.size, dtype=torch.float64, device=run.runtime.device)
        return Sums(own[0], own)
    own = torch.stack(reports[:num_microbatches])
    total = own.sum(dim=0)
    torch.distributed.all_reduce(total, group=run.layout.groups.dp)
    return Sums(total, own)


def _one_for_each_reader(batches: Batches, reads: Sequence[bool]) -> list[Batches]:
    """The micro-batches for each part of a stage that reads them."""
    copies = iter((batches,) if sum(reads) < 2 or batches is None else itertools.tee(batches, sum(reads)))
    return [next(copies) if part_reads else None for part_reads in reads]


def _forward_step(run: Run, token_sums: TokenSums, forward_only: bool) -> Callable[..., tuple[Tensor, Callable]]:
    """The function that megatron-core's schedule calls for each micro-batch."""

    passes = itertools.count(1)
    iteration = run.progress.iteration + (not forward_only)
    wait, work = [whereabouts.EVALUATION] * 2 if forward_only else [whereabouts.DATA, whereabouts.COMPUTATION]
    # A stage that waits for another one's states has not reached its own first forward pass.
    run.where.at(work, iteration)

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
