"""Processes for a whole test session: a case takes as many of them as its layout needs.

Starting a process costs seconds, nearly all of them imports; joining a process group anew costs a moment.
"""

from __future__ import annotations

import gc
import importlib
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any

from torch.distributed import TCPStore

TIMEOUT_SECONDS = 120


class Pool:
    """Runs a function of a test module on some ranks at once.

    Args:
        size: processes at most; they start when a case needs them, and stay.
        variables: of their environment, set before they import torch.
    """

    def __init__(self, size: int, **variables: str) -> None:
        self.size, self.variables = size, variables
        self.workers: list[tuple[Any, Any]] = []

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop()

    def run(self, function: Callable[..., Any], world_size: int, **arguments: Any) -> list[Any]:
        """The function's results by rank; it is called as `function(**arguments)` in a world of that size.

        The environment of torchrun is set, and no process group started. What one rank raises is raised here,
        with its traceback.
        """
        self._start(world_size)
        # The store listens here, as in torchrun's agent: a port that is free now may be taken before a rank binds it.
        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        for rank, (_, pipe) in enumerate(self.workers[:world_size]):
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "MASTER_PORT": store.port}
            pipe.send((function.__module__, function.__qualname__, place, arguments))
        results: dict[int, Any] = {}
        end = time.monotonic() + TIMEOUT_SECONDS
        while len(results) < world_size:
            for rank in range(world_size):
                process, pipe = self.workers[rank]
                if rank in results or not (pipe.poll(0.002) or not process.is_alive()):
                    continue
                failure, results[rank] = pipe.recv() if pipe.poll() else ("the process died", None)
                if failure is not None:
                    if world_size > 1 or not process.is_alive():
                        self._stop()  # its peers wait in a collective
                    raise AssertionError(f"rank {rank} of {world_size} in {function.__qualname__}:\n{failure}")
            if time.monotonic() > end:
                self._stop()
                raise AssertionError(f"{function.__qualname__}: ranks {set(range(world_size)) - set(results)} hang")
        return [results[rank] for rank in range(world_size)]

    def _start(self, count: int) -> None:
        """Have so many processes at least."""
        assert count <= self.size
        context = multiprocessing.get_context("spawn")
        for _ in range(count - len(self.workers)):
            ours, theirs = context.Pipe()
            # Not daemons: a tool may start processes of its own.
            process = context.Process(target=_serve, args=(theirs, self.variables))
            process.start()
            theirs.close()
            self.workers.append((process, ours))

    def _stop(self) -> None:
        for process, pipe in self.workers:
            pipe.close()
            process.join(timeout=0.2)
            process.kill()
            process.join()
        self.workers = []


def _serve(pipe: Any, variables: dict[str, str]) -> None:
    """One worker: take a function's name, run it, send back what it gave."""
    os.environ.update(variables)
    import torch

    from contextlm.parallel import runtime

    torch.set_num_threads(1)
    runtime.quiet_imports()
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
    }
    while True:
        try:
            module, name, place, arguments = pipe.recv()
        except EOFError:
            return
        os.environ.update({key: str(value) for key, value in place.items()})
        try:
            result = getattr(importlib.import_module(module), name)(**arguments)
            pipe.send((None, result))
        except BaseException:
            pipe.send((traceback.format_exc(), None))
        if torch.cuda.is_initialized() and "torch._dynamo" in sys.modules:
            # On a GPU models are compiled: nothing of one case may serve another, and torch compiles only so often.
            torch._dynamo.reset()
        gc.collect()  # models are full of cycles, and hold process groups with their threads
