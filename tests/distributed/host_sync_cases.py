"""What the ranks of a host-sync test do; run by the pool."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.distributed.runs import small_run

# Methods that fetch values without a torch operation of their own.
FETCHES = ("tolist", "cpu", "numpy", "__array__")
# Operations whose result, or its shape, the host must know: on a GPU it waits for them.
WAITING = {"_local_scalar_dense", "is_nonzero", "nonzero", "equal", "masked_select", "unique", "unique_dim"}


class Syncs(TorchDispatchMode):
    """Counts what would make the host wait for a GPU, by the iterations done so far."""

    def __init__(self, run: Any) -> None:
        super().__init__()
        self.run, self.found = run, Counter[int]()

    def add(self) -> None:
        """One more, now."""
        self.found[self.run.progress.iteration] += 1

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        by_mask = function._opname == "index" and any(x is not None and x.dtype == torch.bool for x in args[1])
        if (function._opname in WAITING or by_mask) and not _is_of_the_host():
            self.add()
        return function(*args, **(kwargs or {}))


def _is_of_the_host() -> bool:
    """The tracker of generators compares states of the host's, the hosts tell each other numbers: beside a GPU too."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code.co_name != "train_step":
        place, name = frame.f_code.co_filename, frame.f_code.co_name
        if place.endswith("parallel/agreement.py") or (place.endswith("tensor_parallel/random.py") and name == "fork"):
            return True
        frame = frame.f_back
    return False


@contextlib.contextmanager
def counted(run: Any) -> Iterator[Syncs]:
    """Inside, what waits is counted, in this thread."""

    def also(original: Callable) -> Callable:
        def fetch(*args: Any, **kwargs: Any) -> Any:
            if not _is_of_the_host():
                syncs.add()
            return original(*args, **kwargs)

        return fetch

    with contextlib.ExitStack() as stack:
        for name in FETCHES:
            stack.enter_context(mock.patch.object(torch.Tensor, name, also(getattr(torch.Tensor, name))))
        stack.enter_context(mock.patch.object(torch.cuda, "synchronize", also(torch.cuda.synchronize)))
        syncs = stack.enter_context(Syncs(run))
        yield syncs


def host_syncs(values: dict[str, Any], planted: str | None = None) -> dict[int, int]:
    """Train 12 iterations with a log line after each 6; syncs by the iterations that were done.

    Args:
        values: of the configuration.
        planted: a method of tensors, called on the loss of each iteration.
    """
    from contextlm.training import train

    def step_and_fetch(run: Any, batches: Any) -> Any:
        result = step(run, batches)
        getattr(result.loss, str(planted))()
        return result

    step = train.train_step
    given = {"train_iters": 12, "log_interval": 6, "eval_iters": 0, "micro_batch_size": 2, "clip_grad": 0.5}
    with small_run("gpt2", **(given | values)) as run, contextlib.ExitStack() as stack:
        if planted is not None:
            stack.enter_context(mock.patch.object(train, "train_step", step_and_fetch))
        with counted(run) as syncs:
            train.train(run)
        return {done: syncs.found[done] for done in range(13)}
