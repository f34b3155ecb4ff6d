"""Under torchrun: do the ranks meet over gloo, and do their clocks agree?"""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Iterator

from contextlm.doctor.finding import OK, PROBLEM, WARNING, Finding

_PATIENCE_SECONDS = 30
_DRIFT_SECONDS = 1.0


def ranks() -> Iterator[Finding]:
    """Nothing in a world of one. Collective."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1 or "MASTER_ADDR" not in os.environ:
        return
    from torch import distributed

    began = time.perf_counter()
    try:
        distributed.init_process_group("gloo", timeout=datetime.timedelta(seconds=_PATIENCE_SECONDS))
        met = time.perf_counter() - began
        distributed.barrier()
        now: list[tuple[str, float]] = [("", 0.0)] * world_size
        distributed.all_gather_object(now, (os.uname().nodename, time.time()))
        distributed.destroy_process_group()
    except (RuntimeError, ValueError) as error:
        remedy = "look at the lines on the network above, on each host"
        yield Finding("ranks", "meeting", f"failed: {str(error).splitlines()[0]}", PROBLEM, remedy)
        return
    hosts = {host for host, _ in now}
    yield Finding("ranks", "meeting", f"{world_size} ranks on {len(hosts)} host(s) met in {met:.1f} s")
    drift = max(clock for _, clock in now) - min(clock for _, clock in now)
    state, remedy = (WARNING, "set the clocks of the hosts (NTP)") if drift > _DRIFT_SECONDS else (OK, "")
    yield Finding("ranks", "clocks", f"at most {drift:.2f} s apart", state, remedy)
