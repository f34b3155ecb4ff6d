"""Do the ranks of each group hear each other? Asked right after they have met, so that a broken network is named.

A small sum over every group that the run communicates in: its result is known. It may take a minute, however long
`--distributed-timeout-minutes` lets a silent peer be waited for later: all ranks are there, and do nothing else.
"""

from __future__ import annotations

import datetime
import time
from typing import NamedTuple

import torch
from torch.distributed import ProcessGroup

from contextlm.parallel.layout import Layout
from contextlm.parallel.runtime import Runtime
from contextlm.training.faults import Fault

PATIENCE_SECONDS = 60.0
_NUM_VALUES = 64
_REMEDY = (
    "look at the network between these hosts: NCCL_SOCKET_IFNAME and GLOO_SOCKET_IFNAME name the interface, "
    "NCCL_DEBUG=INFO tells more, tools/doctor.py shows what is there"
)


class Heard(NamedTuple):
    """How long a small sum over all ranks takes, once they are connected."""

    num_ranks: int
    seconds: float


def check(process: Runtime, layout: Layout) -> Heard | None:
    """Sum over every group of more than one rank; None in a world of one. Collective.

    Raises:
        Fault: a group is silent, or its sum is wrong: on every rank that can still be told.
    """
    if process.world_size == 1:
        return None
    groups = {
        "all ranks": torch.distributed.group.WORLD,
        "tensor-parallel ranks": layout.groups.tp,
        "data-parallel ranks": layout.groups.dp,
        "pipeline stages": layout.groups.pp,
    }
    wrong = [problem for name, group in groups.items() if group.size() > 1 for problem in _sum(name, group, process)]
    found: list[list[str]] = [[] for _ in range(process.world_size)]
    torch.distributed.all_gather_object(found, wrong)
    if everyones := sorted({problem for problems in found for problem in problems}):
        raise Fault("; ".join(everyones), f"{_REMEDY}; a device or a cable may be broken")
    began = time.perf_counter()
    _sum("all ranks", groups["all ranks"], process)
    return Heard(process.world_size, time.perf_counter() - began)


def _sum(name: str, group: ProcessGroup, process: Runtime) -> list[str]:
    """What is wrong with the sum of what the ranks of a group bring, if anything."""
    ranks = torch.distributed.get_process_group_ranks(group)
    values = torch.arange(1, _NUM_VALUES + 1, dtype=torch.float32, device=process.device)
    given = values * (process.rank + 1)
    options = torch.distributed.AllreduceOptions()
    options.asyncOp = True
    options.timeout = datetime.timedelta(seconds=PATIENCE_SECONDS)  # gloo keeps it; NCCL has us watch the clock
    began = time.monotonic()
    try:
        work = group.allreduce([given], options)
        while not work.is_completed():
            if time.monotonic() - began > PATIENCE_SECONDS + 1:
                raise RuntimeError("no answer")
            time.sleep(0.0005)
        work.wait()
    except RuntimeError as error:
        where = f"{name} {', '.join(map(str, ranks))}"
        what = f"rank {process.rank}: no sum over {where} after {time.monotonic() - began:.0f} s"
        raise Fault(what, _REMEDY) from error
    expected = values * sum(rank + 1 for rank in ranks)
    if torch.equal(given, expected):
        return []
    first = int((given != expected).nonzero()[0])
    return [
        f"the sum over {name} {', '.join(map(str, ranks))} is wrong: {given[first]:g} in place of {expected[first]:g} "
        f"on rank {process.rank}"
    ]
