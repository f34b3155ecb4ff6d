"""What the ranks of an order test do: note, in order, what they ask of each process group; run by the pool."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.distributed.runs import small_run


class Operation(NamedTuple):
    """One that a rank asks for.

    Attributes:
        group: its process group's name.
        ranks: of that group.
        peer: the other rank of a send or a receive.
        launch: operations of one launch run at once, as sends and receives of a batch do.
    """

    group: str
    ranks: tuple[int, ...]
    name: str
    peer: int | None
    launch: int


class Order(TorchDispatchMode):
    """Notes operations where they reach a process group."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[Operation] = []
        self._launches = itertools.count()
        self._batch: int | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func.namespace == "c10d":
            named = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False))
            group = torch.distributed.ProcessGroup.unbox(named["process_group"])
            name, ranks = func.name().split("::")[1], tuple(torch.distributed.get_process_group_ranks(group))
            peer = next((ranks[named[end]] for end in ("dst", "src") if end in named), None)
            launch = next(self._launches) if self._batch is None else self._batch
            self.noted.append(Operation(group.group_name, ranks, name, peer, launch))
        return func(*args, **(kwargs or {}))

    def batched(self, batch: Callable[..., Any]) -> Callable[..., Any]:
        """`torch.distributed.batch_isend_irecv`, noted as one launch."""

        def noted(operations: list[Any]) -> Any:
            self._batch = next(self._launches)
            try:
                return batch(operations)
            finally:
                self._batch = None

        return noted


def operations(values: dict[str, Any]) -> list[Operation]:
    """Of two iterations of this rank."""
    from contextlm.training.step import train_step

    distributed = torch.distributed
    with small_run("gpt2", **values) as run, Order() as order:
        batched = mock.patch.object(distributed, "batch_isend_irecv", order.batched(distributed.batch_isend_irecv))
        with batched, contextlib.ExitStack() as stack:
            batches = run.micro_batches(run.datasets.train, 0, 2 * run.num_microbatches)
            if batches is not None:
                stack.callback(batches.close)
            for _ in range(2):
                train_step(run, batches)
        return order.noted
