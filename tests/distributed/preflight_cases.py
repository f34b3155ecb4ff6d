"""What the ranks of a test of the preflight do; run by the pool."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from typing import Any
from unittest import mock

from contextlm.config.schema import ParallelConfig


class _Over(Exception):
    """Leave without the barrier of those who are done."""


def hear(what: str) -> dict[str, Any]:
    """Sum over every group of TP 2, where something is wrong with rank 1.

    Args:
        what: "nothing"; "wrong": it brings other numbers; "silent": it brings none for a while.

    Returns:
        `ranks` that were heard, `fault` what was raised.
    """
    from contextlm.parallel import runtime
    from contextlm.parallel.layout import model_parallel
    from contextlm.preflight import collectives
    from contextlm.training.faults import Fault

    found: dict[str, Any] = {"ranks": None, "fault": None}
    parallel = ParallelConfig(tensor_model_parallel_size=2)
    with contextlib.suppress(_Over), runtime.start(parallel) as process, model_parallel(parallel) as layout:
        if process.rank == 1 and what == "silent":
            time.sleep(1.5)
            raise _Over
        if process.rank == 1 and what == "wrong":
            process = dataclasses.replace(process, rank=7)
        try:
            with mock.patch.object(collectives, "PATIENCE_SECONDS", 0.5 if what == "silent" else 60.0):
                found["ranks"] = collectives.check(process, layout).num_ranks
        except Fault as fault:
            found["fault"] = (fault.what, fault.remedy)
            raise _Over from fault
    return found


def meet() -> list[tuple[str, str]]:
    """What the doctor says of the ranks: name and state."""
    from contextlm.doctor.ranks import ranks

    return [(finding.name, finding.state) for finding in ranks()]
