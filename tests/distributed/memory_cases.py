"""What the ranks of a memory test do: count the tensors that autograd keeps; run by the pool."""

from __future__ import annotations

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

    def __enter__(self) -> SavedTensors:
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
