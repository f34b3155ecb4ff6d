"""`pretrain_contextlm.py` in which something goes wrong: the program is patched here, and knows of nothing.

    torchrun ... -m tests.faults.sabotaged '{"what": "nan_gradient", "rank": 1, "iteration": 4, ...}' WORDS

`rank` says where it goes wrong, `told` names a file that is written when it does. Only the first attempt of a job is
sabotaged: what torchrun starts again is sound.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from tests.faults.controls import CONTROLS


def command(words: Sequence[str], sabotage: dict[str, Any] | None) -> list[str]:
    """What torchrun is to run."""
    if sabotage is None:
        return ["pretrain_contextlm.py", *words]
    return ["-m", "tests.faults.sabotaged", json.dumps(sabotage), *words]


def run(words: Sequence[str], sabotage: dict[str, Any] | None) -> None:
    """The program, in this process."""
    import pretrain_contextlm

    sys.argv = ["pretrain_contextlm.py", *words]
    if sabotage is not None and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
        if sabotage["rank"] in (None, int(os.environ["RANK"])):
            options = {name: value for name, value in sabotage.items() if name not in ("what", "rank", "told")}
            SABOTAGES[sabotage["what"]](lambda: _tell(sabotage["told"]), **options)
    pretrain_contextlm.main()


def _tell(told: str) -> None:
    path = Path(told)
    if not path.exists():
        path.write_text(repr(time.time()))


def _at_a_file(happen: Callable[[], None], event: str, pattern: str, time_of: int, keeps_on: bool = False) -> None:
    """Something happens when Python is about to open, rename or make a file: the interpreter tells of each.

    Args:
        event: "open" (to write), "os.rename" or "os.mkdir".
        pattern: of the path, or of "FROM -> TO".
        time_of: at which of the times that this happens.
        keeps_on: and at each time after it.
    """
    seen = 0

    def hook(name: str, values: tuple[Any, ...]) -> None:
        nonlocal seen
        if name != event:
            return
        if name == "open" and not _writes(values[1], values[2]):
            return
        path = " -> ".join(str(value) for value in values[: 2 if name == "os.rename" else 1])
        if name == "os.mkdir" and os.path.isdir(path):
            return  # asked for once more, "if it is not there": a refusal would not be noticed
        if re.search(pattern, path):
            seen += 1
            if seen == time_of or keeps_on and seen > time_of:
                happen()

    sys.addaudithook(hook)


def _writes(mode: str | None, flags: int) -> bool:
    return bool(flags & (os.O_WRONLY | os.O_RDWR)) if mode is None else any(letter in mode for letter in "wax+")


def die(tell: Callable[[], None], event: str, pattern: str, time_of: int) -> None:
    """The process is killed at this point."""

    def happen() -> None:
        tell()
        os.kill(os.getpid(), signal.SIGKILL)

    _at_a_file(happen, event, pattern, time_of)


def fail(tell: Callable[[], None], event: str, pattern: str, time_of: int, error: str, keeps_on: bool) -> None:
    """The operating system refuses at this point: `error` is a name like ENOSPC."""
    number = getattr(errno, error)

    def happen() -> None:
        tell()
        raise OSError(number, os.strerror(number))

    _at_a_file(happen, event, pattern, time_of, keeps_on)


def slow_files(tell: Callable[[], None], pattern: str, seconds: float) -> None:
    """Each file takes that long to open."""

    def happen() -> None:
        tell()
        time.sleep(seconds)

    _at_a_file(happen, "open", pattern, 1, keeps_on=True)


def nan_gradient(tell: Callable[[], None], iteration: int, keeps_on: bool = False) -> None:
    """In one iteration, once, the gradient that leaves this rank's output is NaN; its loss is not."""
    from contextlm.training import step

    original, has_been = step._forward_step, False

    def sabotaged(run: Any, *rest: Any) -> Any:
        forward_step, now = original(run, *rest), run.progress.iteration + 1

        def forward(batches: Any, model: Any) -> Any:
            nonlocal has_been
            output, loss_func = forward_step(batches, model)
            due = now == iteration and not has_been or keeps_on and now > iteration
            if due and output.requires_grad:
                has_been = True
                tell()
                output.register_hook(lambda gradient: gradient * float("nan"))
            return output, loss_func

        return forward

    cast(Any, step)._forward_step = sabotaged


def sleep(tell: Callable[[], None], iteration: int, seconds: float, holds_gil: bool = False) -> None:
    """The rank sleeps before an iteration; in C, with Python's lock held, so that none of its threads goes on."""
    from contextlm.training import train

    original = train.train_step

    def sabotaged(run: Any, batches: Any) -> Any:
        if run.progress.iteration + 1 == iteration:
            tell()
            if holds_gil:
                ctypes.PyDLL(None).usleep(int(seconds * 1e6))
            else:
                time.sleep(seconds)
        return original(run, batches)

    cast(Any, train).train_step = sabotaged


def pace(tell: Callable[[], None], seconds: float) -> None:
    """Every iteration takes that long: time enough for a signal."""
    from contextlm.training import train

    original = train.train_step

    def sabotaged(run: Any, batches: Any) -> Any:
        tell()
        time.sleep(seconds)
        return original(run, batches)

    cast(Any, train).train_step = sabotaged


def failing_thread(tell: Callable[[], None], sample: int) -> None:
    """The thread that reads ahead fails at a sample."""
    from contextlm.data.samples import EpochSamples

    original = EpochSamples.sample

    def sabotaged(self: Any, n: int) -> Any:
        if n == sample:
            tell()
            raise RuntimeError(f"sample {n} went up in smoke")
        return original(self, n)

    EpochSamples.sample = sabotaged


FAULTS = (die, fail, slow_files, nan_gradient, sleep, pace, failing_thread)
SABOTAGES: dict[str, Callable[..., None]] = {function.__name__: function for function in (*FAULTS, *CONTROLS)}

if __name__ == "__main__":
    run(sys.argv[2:], json.loads(sys.argv[1]))
