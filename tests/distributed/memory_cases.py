"""What the ranks of a memory test do: count tensors, or what the allocator gives out; run by the pool."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from tests.distributed.runs import small_run
from tests.small_configs import VOCAB_SIZE


class SavedTensors(torch.autograd.graph.saved_tensors_hooks):
    """Bytes of the storages that autograd keeps for the backward pass: now, and at most at once.

    A storage counts once, however many operations keep a part of it, and whole. Integers and masks per token do
    not count, as in the formula.

    Args:
        others: tensors that are there anyway: parameters.
    """

    def __init__(self, others: Iterable[Tensor]) -> None:
        super().__init__(lambda tensor: _Saved(self, tensor), lambda saved: saved.tensor)
        self.others = {tensor.untyped_storage().data_ptr() for tensor in others}
        self.holders: Counter[int] = Counter()
        self.now = self.most = 0

    def __enter__(self) -> SavedTensors:  # type: ignore[override]
        super().__enter__()
        return self

    def count(self, tensor: Tensor, change: int) -> None:
        """One operation more (1) or less (-1) that keeps a tensor."""
        storage = tensor.untyped_storage()
        if storage.data_ptr() in self.others or not tensor.is_floating_point():
            return
        before = self.holders[storage.data_ptr()]
        self.holders[storage.data_ptr()] += change
        if 0 in (before, before + change):
            self.now += change * storage.nbytes()
            self.most = max(self.most, self.now)


class _Saved:
    """A tensor in the hands of one operation, which lets go of it in its backward pass."""

    def __init__(self, saved: SavedTensors, tensor: Tensor) -> None:
        self.saved, self.tensor = saved, tensor
        saved.count(tensor, 1)

    def __del__(self) -> None:
        self.saved.count(self.tensor, -1)


def forward_and_backward(backbone: str, values: dict[str, Any]) -> tuple[int, int]:
    """Bytes that the forward pass of one micro-batch keeps, and the most at once until its backward pass ends."""
    with small_run(backbone, **values) as run:
        model, training = run.model[0].train(), run.config.training
        generator = torch.Generator().manual_seed(1)
        ids_BS = torch.randint(
            VOCAB_SIZE, (training.micro_batch_size, run.config.model.seq_length), generator=generator
        )
        positions_BS = torch.arange(ids_BS.shape[1]).expand_as(ids_BS)
        with SavedTensors(model.parameters()) as saved:
            loss_BS = model(ids_BS, positions_BS, None, labels=ids_BS)
            kept = saved.now
            loss_BS.sum().backward()
        assert saved.now == 0
        return kept, saved.most


def schedule(backbone: str, values: dict[str, Any]) -> int:
    """The most bytes at once while a pipeline schedule runs."""
    from contextlm.training.step import compute_gradients

    with small_run(backbone, **values) as run:
        batches = run.micro_batches(run.datasets.train, 0, run.num_microbatches)
        with SavedTensors(parameter for part in run.model for parameter in part.parameters()) as saved:
            compute_gradients(run, batches)
        if batches is not None:
            batches.close()
        assert saved.now == 0
        return saved.most


def state_bytes(backbone: str, values: dict[str, Any]) -> dict[str, int]:
    """Bytes of the tensors that a rank holds between two steps, by kind; each storage counts once."""
    from contextlm.training.step import train_step

    with small_run(backbone, **values) as run:
        batches = run.micro_batches(run.datasets.train, 0, run.num_microbatches)
        train_step(run, batches)
        weights = [parameter for part in run.model for parameter in part.parameters()]
        buffers = [buffer for part in run.model for buffer in part.buffers + part.expert_parallel_buffers]
        (optimizer,) = run.optimizer.chained_optimizers
        masters = [weight for group in optimizer.param_groups for weight in group["params"]]
        moments = [value for state in optimizer.optimizer.state.values() for value in state.values()]
        held = {
            "weights": _storages(weights),
            "gradients": _storages(buffer.grad_data for buffer in buffers),
            "optimizer": _storages(masters + moments, besides=weights),
        }
        if batches is not None:
            batches.close()
        return held


def _storages(tensors: Iterable[Tensor], besides: Iterable[Tensor] = ()) -> int:
    """Bytes of storages, without those of other tensors."""
    sizes = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    for tensor in besides:
        sizes.pop(tensor.untyped_storage().data_ptr(), None)
    return sum(sizes.values())


def allocated(backbone: str, values: dict[str, Any]) -> int:
    """The most that the allocator of a CPU gave out during a training step, above what was there before."""
    from torch.profiler import ProfilerActivity, profile

    from contextlm.training.step import train_step

    with small_run(backbone, **values) as run:
        batches = run.micro_batches(run.datasets.train, 0, 2 * run.num_microbatches)
        train_step(run, batches)  # the optimizer makes its states
        run.optimizer.zero_grad()  # else gradients that it has kept are let go in the step, which may be seen or not
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
            train_step(run, batches)
        if batches is not None:
            batches.close()
    changes = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes.sort(key=lambda event: event.start_ns())
    return max(itertools.accumulate(event.nbytes() for event in changes))
