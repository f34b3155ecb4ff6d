"""Does what torchrun does, in a process forked from one that has imported everything: ranks that start in a moment."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from torch.distributed import TCPStore

from tests.faults.preloaded import ROOT

SECONDS_TO_GO = 30.0  # torchrun's
_DAC_OVERRIDE, _DAC_READ_SEARCH = 1, 2


def fork(words: Sequence[str], ranks: int, log: Path, sabotage: dict[str, Any] | None, like_a_user: bool) -> Any:
    """Start a job.

    Args:
        words: of `pretrain_contextlm.py`.
        ranks: how many.
        log: takes what they print.
        sabotage: what goes wrong inside them (`sabotaged.py`).
        like_a_user: file permissions hold for it even where we are root.

    Returns:
        the launcher's process id, and those of the ranks.
    """
    ours, theirs = os.pipe()
    launcher = os.fork()
    if launcher == 0:
        status = 1
        try:
            os.setsid()
            os.chdir(ROOT)
            os.close(ours)
            _print_into(log)
            if like_a_user:
                _give_up_roots_rights()
            status = _launch(words, ranks, sabotage, theirs)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(theirs)
    with open(ours) as pipe:
        return launcher, json.loads(pipe.readline())


def _launch(words: Sequence[str], count: int, sabotage: dict[str, Any] | None, told: int) -> int:
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: asked.append(number))
    ranks, ports = {}, []
    # The ranks are forked first: the store has threads.
    for rank in range(count):
        their_port, our_port = os.pipe()
        if (process := os.fork()) == 0:
            os.close(our_port)
            os.close(told)
            _be_a_rank(words, rank, count, sabotage, their_port)
        os.close(their_port)
        ranks[process] = rank
        ports.append(our_port)
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    for port in ports:
        with contextlib.suppress(BrokenPipeError), open(port, "w") as pipe:
            pipe.write(f"{store.port}\n")
    with open(told, "w") as pipe:
        pipe.write(json.dumps(list(ranks)) + "\n")
    return _watch(ranks, asked)


def _watch(ranks: dict[int, int], asked: list[int]) -> int:
    """Wait for the ranks: when one fails, or we are told to stop, the others are told, and killed if they stay."""
    failed, deadline = False, None
    while ranks:
        for process in list(ranks):
            gone, status = os.waitpid(process, os.WNOHANG)
            if gone:
                del ranks[process]
                failed = failed or status != 0
        if deadline is None and (failed or asked):
            deadline = time.monotonic() + SECONDS_TO_GO
            _tell(ranks, signal.SIGTERM)
        if deadline is not None and time.monotonic() > deadline:
            _tell(ranks, signal.SIGKILL)
        time.sleep(0.005)
    return int(failed)


def _tell(ranks: dict[int, int], number: int) -> None:
    for process in ranks:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)


def _be_a_rank(words: Sequence[str], rank: int, count: int, sabotage: dict[str, Any] | None, port: int) -> None:
    """Run the program as torchrun's worker does, and end the process."""
    status = 1
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        with open(port) as pipe:
            os.environ["MASTER_PORT"] = pipe.readline().strip()
        os.environ |= {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count),
            "MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0",
            "TORCHELASTIC_RUN_ID": "a trial",
        }  # fmt: skip
        from tests.faults import sabotaged

        sabotaged.run(words, sabotage)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        cast(Any, threading)._shutdown()  # as a program does: wait for threads, then its last words
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _print_into(log: Path) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115 - for the rest of the process
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115


def _give_up_roots_rights() -> None:
    """Root may write into a read-only folder; without these capabilities it may not. Others never had them."""
    libc = ctypes.CDLL(None)
    header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    libc.capget(header, data)
    data[0] &= ~(1 << _DAC_OVERRIDE | 1 << _DAC_READ_SEARCH)  # effective, permitted, inheritable; the low words
    data[1] &= ~(1 << _DAC_OVERRIDE | 1 << _DAC_READ_SEARCH)
    if libc.capset(header, data) != 0:
        raise OSError("capset failed: file permissions would not hold")
