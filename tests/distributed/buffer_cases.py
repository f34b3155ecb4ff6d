"""What the process of a test of gradient buffers does; run by the pool."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

from tests.distributed.runs import small_run

ONE = {"bf16": True, "micro_batch_size": 2, "global_batch_size": 2}
TWO = {"micro_batch_size": 2, "global_batch_size": 4}
Gradients = dict[str, np.ndarray]


def _compute(run: Any) -> None:
    """The gradients of the same micro-batches each time."""
    from contextlm.training.step import compute_gradients

    with contextlib.closing(run.micro_batches(run.datasets.train, 0, run.num_microbatches)) as batches:
        compute_gradients(run, batches)


def _in_buffer(run: Any) -> Gradients:
    return {name: p.main_grad.clone().float().numpy() for name, p in run.language_model[0].named_parameters()}


def after_another_iteration() -> tuple[Gradients, Gradients]:
    """The gradients of an iteration, and of the next one after the buffer was filled with NaN."""
    with small_run("gpt2", **TWO) as run:
        _compute(run)
        first = _in_buffer(run)
        for buffer in run.model[0].buffers:
            buffer.grad_data.fill_(np.nan)
        _compute(run)
        return first, _in_buffer(run)


def with_none() -> tuple[bool, Gradients]:
    """Whether beginning an iteration leaves the buffer as it was; then what is in it if there was no backward pass."""
    with small_run("gpt2", **TWO) as run:
        _compute(run)
        before = _in_buffer(run)
        run.model[0].zero_grad_buffer()
        is_as_it_was = all(np.array_equal(before[name], value) for name, value in _in_buffer(run).items())
        run.model[0].finish_grad_sync()
        return is_as_it_was, _in_buffer(run)


def together(*, fails: bool) -> tuple[Gradients, Gradients, list[tuple[bool, int]]]:
    """Gradients of a second iteration, added up by hooks and at once; of each time whether added, and how many.

    Args:
        fails: the first iteration comes to no end where they are added up at once.
    """
    import torch

    from contextlm.megatron.gradient_sums import GradientSums

    calls = []

    def add_up(sums: Any, gradients: Any, adds: bool) -> None:
        calls.append((adds, len(gradients)))
        (torch._foreach_add_ if adds else torch._foreach_copy_)(sums, gradients)

    def fail(gradient: Any) -> None:
        raise ArithmeticError

    found = []
    for gradient_sums in (None, GradientSums(add_up)):
        with small_run("gpt2", **TWO, bf16=True) as run:
            run.model[0].gradient_sums = gradient_sums
            first = next(run.language_model[0].parameters())
            handle = first.register_hook(fail) if fails and gradient_sums else None
            with contextlib.suppress(ArithmeticError):
                _compute(run)
            if handle:
                handle.remove()
            _compute(run)
            found.append(_in_buffer(run))
    return found[0], found[1], calls


def divided(keeps_sums: bool) -> tuple[Gradients, float, int]:
    """Gradients, the factor that is noted, and the tokens of an iteration."""
    with small_run("gpt2", **TWO) as run:
        run.model[0].keeps_sums = keeps_sums
        _compute(run)
        return _in_buffer(run), run.model[0].gradient_factor.item(), 4 * run.config.model.seq_length


def left(distributed: bool) -> tuple[Gradients, Gradients, int, bool, bool]:
    """Gradients of a buffer, and of two iterations without one; bytes of the buffer then; whether AdamW finds them.

    The last value: whether a run on this device would have none by itself.
    """
    from contextlm.training.unbuffered import leave_gradients, without_buffers

    with small_run("gpt2", **ONE, use_distributed_optimizer=distributed) as run:
        run.model[0].keeps_sums = True
        _compute(run)
        expected = _in_buffer(run)
        leave_gradients(run.model, run.optimizer)
        for _ in range(2):  # the second iteration forgets the first
            _compute(run)
        weights = dict(run.language_model[0].named_parameters())
        found = {name: weight.grad.float().numpy() for name, weight in weights.items()}
        (optimizer,) = run.optimizer.chained_optimizers
        seen = {id(optimizer.optimizer.gradient(master)) for master in optimizer.get_parameters()}
        finds = seen == {id(weight.grad) for weight in weights.values()}
        num_bytes = run.model[0].buffers[0].grad_data.untyped_storage().nbytes()
        return expected, found, num_bytes, finds, without_buffers(run.config, 1, run.runtime.device)
