"""The trainers of a model in alternating windows: what else the chip does, and how warm it is, meets all of them.

Results are kept after every window, and what is there is not measured again. Trainers that do not fit into the
device's memory together are measured one after another; one that does not fit at all is said not to, and the others go
on.
"""

from __future__ import annotations

import contextlib
import gc
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import torch

from gpu_clock import Budget, first_seconds, synchronize, window
from gpu_trainers import Step

WARM_UP = 5
OUT_OF_MEMORY = "out of memory"
_ROOM = 0.92  # of the device's memory; the rest is CUDA's own, and lies in pieces


class Job(NamedTuple):
    """What is to be measured of one model.

    Attributes:
        windows: trainer -> how many windows it is to have.
        seconds: of a window.
        tokens: of an iteration.
        num_parameters: of the plain model.
        opened: makes a trainer's step, inside a context.
        afterwards: what else a warm trainer is asked, and the seconds that takes.
        noted: with each window.
    """

    windows: Mapping[str, int]
    seconds: float
    tokens: int
    num_parameters: int
    opened: Callable[[str], contextlib.AbstractContextManager[Step]]
    afterwards: Callable[[str, Step], None]
    seconds_afterwards: Callable[[str], float]
    noted: Mapping[str, float] = MappingProxyType({})


Found = MutableMapping[str, Any]
"""Trainer -> its results."""


def measure(job: Job, budget: Budget, found: Found, keep: Callable[[], None], total_memory: float) -> list[str]:
    """Measure what is missing.

    Args:
        keep: writes the results.
        total_memory: bytes of the device.

    Returns:
        the trainers for which the time did not suffice.
    """
    waiting = [name for name in job.windows if remaining(job, found, name)]
    waiting = [name for name in waiting if found.get(name, {}).get("failed") != OUT_OF_MEMORY]
    unmeasured: list[str] = []
    alone: set[str] = set()
    while waiting:
        held: dict[str, Step] = {}
        with contextlib.ExitStack() as stack:
            for name in tuple(waiting):
                if held and (alone & {name, *held} or not fits(found, held, name, total_memory)):
                    continue
                needed = sum(remaining(job, found, other) for other in (*held, name))
                if not budget.allows(first_seconds(found, name, job.num_parameters) + needed):
                    waiting.remove(name)
                    unmeasured.append(name)
                    continue
                step = begin(job, found, name, stack)
                if step is not None:
                    held[name] = step
                elif held and found[name]["failed"] == OUT_OF_MEMORY:
                    alone.add(name)
                    continue
                waiting.remove(name)
                keep()
            crowded_out = take_turns(job, budget, found, held, keep)
            alone |= crowded_out
            waiting += crowded_out
            for name, step in held.items():
                if (needed := job.seconds_afterwards(name)) and budget.allows(needed):
                    try:
                        job.afterwards(name, step)
                    except Exception as error:  # the windows are there
                        failure(error)
                    keep()
            held.clear()
        forget_all()
    return unmeasured


def missing(job: Job, found: Found, name: str) -> int:
    """Windows that a trainer still has to have."""
    return max(0, job.windows[name] - len(found.get(name, {}).get("windows", ())))


def remaining(job: Job, found: Found, name: str) -> float:
    """Seconds that a warm trainer still takes: its windows, and what comes afterwards."""
    return missing(job, found, name) * job.seconds + job.seconds_afterwards(name)


def fits(found: Found, held: Iterable[str], name: str, total_memory: float) -> bool:
    """Whether another trainer's tensors find room beside those that are held, as far as these tell."""
    known = [result for result in found.values() if "held_bytes" in result]
    state = max(result["held_bytes"] for result in known)
    passing = max(result["peak_bytes"] - result["held_bytes"] for result in known)
    own = found.get(name, {}).get("held_bytes", 1.1 * state)
    return sum(found[other]["held_bytes"] for other in held) + own + passing < _ROOM * total_memory


def begin(job: Job, found: Found, name: str, stack: contextlib.ExitStack) -> Step | None:
    """Build a trainer and warm it up; None, with the reason noted, if it fails.

    Its first seconds are noted, how many of them the compiler took, and its memory: what it holds between iterations,
    and the peak of an iteration, both without what the other trainers hold.
    """
    from contextlm.model.compilation import seconds_spent  # imports megatron-core

    result = found.setdefault(name, {"windows": []})
    result.pop("failed", None)
    before, began, compiled = allocated(), time.perf_counter(), seconds_spent()
    try:
        step = _warm(job.opened(name), stack)
    except Exception as error:  # of this trainer; the others go on
        result["failed"] = failure(error)
    if "failed" in result:
        free()
        return None
    memory = {"held_bytes": allocated() - before, "peak_bytes": peak_allocated() - before}
    result.update(memory, first_seconds=time.perf_counter() - began, compile_seconds=seconds_spent() - compiled)
    return step


def _warm(opened: contextlib.AbstractContextManager[Step], stack: contextlib.ExitStack) -> Step:
    with contextlib.ExitStack() as own:
        step = own.enter_context(opened)
        step()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()  # without what compiling took
        for _ in range(WARM_UP - 1):
            step()
        synchronize()
        stack.enter_context(own.pop_all())
    return step


def failure(error: Exception) -> str:
    """What befell a part of the call, in a line; its traceback is printed, unless it is want of memory."""
    # Libraries and Triton have errors of their own for it.
    if isinstance(error, torch.OutOfMemoryError) or re.search("out of memory|ALLOC_FAILED", str(error)):
        return OUT_OF_MEMORY
    traceback.print_exception(error, file=sys.stderr)
    return f"{type(error).__name__}: {error}".splitlines()[0]


def take_turns(job: Job, budget: Budget, found: Found, held: dict[str, Step], keep: Callable[[], None]) -> set[str]:
    """The windows that the held trainers miss, in turns; those that find no memory beside others are let go."""
    crowded_out, is_crowded = set(), len(held) > 1
    for turn in range(max((missing(job, found, name) for name in held), default=0), 0, -1):
        for name, step in tuple(held.items()):
            if missing(job, found, name) < turn or not budget.allows(job.seconds):
                continue
            began = time.time()
            try:
                rate = window(step, job.seconds)
            except Exception as error:
                del held[name]
                found[name]["failed"] = failure(error)
                if is_crowded and found[name]["failed"] == OUT_OF_MEMORY:
                    crowded_out.add(name)
                continue
            result = {"at": began, "until": time.time(), "tokens_per_second": rate * job.tokens, **job.noted}
            found[name]["windows"].append(result)
            keep()
    return crowded_out


def in_turns(one: Sequence[Mapping[str, float]], other: Sequence[Mapping[str, float]]) -> bool:
    """Whether windows of one trainer lie between those of the other; a single one each, within two minutes."""
    if not one or not other:
        return False
    if len(one) == len(other) == 1:
        return abs(one[0]["at"] - other[0]["at"]) < 120
    return one[0]["at"] < other[-1]["until"] and other[0]["at"] < one[-1]["until"]


def allocated() -> int:
    """Bytes of tensors on the device."""
    return torch.cuda.memory_allocated() if torch.cuda.is_available() else 0


def peak_allocated() -> int:
    """The most that they were."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0


def forget_all() -> None:
    """Forget what was compiled, too: torch compiles one function only so often."""
    torch._dynamo.reset()
    free()


def free() -> None:
    """Give back the memory of what nobody holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
