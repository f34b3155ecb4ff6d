"""`pretrain_contextlm.py` with a fault in one step of one rank.

FAULTS="kill:1:5 sleep:0:8" has one for each attempt of torchrun: what happens, on which rank, in which iteration.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import pretrain_contextlm
from contextlm.parallel import runtime

HAPPENS = {
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "orphan": lambda: os.kill(os.getppid(), signal.SIGKILL),
    "sleep": lambda: time.sleep(1000),
    "slow": lambda: time.sleep(2),
    "hold": lambda: ctypes.PyDLL(None).usleep(1_000_000_000),  # an extension that keeps the interpreter to itself
}


def main() -> None:
    """Train, with this attempt's fault on this rank."""
    faults = os.environ["FAULTS"].split()
    what, rank, at = (*faults, "none:0:0")[min(int(os.environ["TORCHELASTIC_RESTART_COUNT"]), len(faults))].split(":")
    if rank != os.environ["RANK"] or what == "none":
        pretrain_contextlm.main()
        return
    runtime.quiet_imports()
    runtime.prepare_megatron(use_cuda=False)
    from contextlm.training import train

    step = train.train_step

    def train_step(run: Any, batches: Any) -> Any:
        if run.progress.iteration + 1 == int(at):
            HAPPENS[what]()
        return step(run, batches)

    with mock.patch.object(train, "train_step", train_step):
        pretrain_contextlm.main()


if __name__ == "__main__":
    main()
